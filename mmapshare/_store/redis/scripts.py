"""What the server runs: one program an act, whole, by its own clock.

A share is a hash, ``mmapshare:{NAME}``, so that all of it is in one slot of a cluster:

====  ==========================================================================================
id    16 random bytes: which region this is; another one under the same name has another
kind  0 a value, 1 values by key; fmt 1; max the ceiling; sg whether it is signed; py the Python
      that made it
v     version, a decimal number; 0 while empty
f     the frames of version v (see `sealing`), of a value only
ct    the last commits of up to 32 writers, newest first: 16 bytes of tag and 8 of version each.
      A commit that is sent twice is made once, though others came in between
lt    token of the lock's holder, empty for none; lu until when by the server's clock, in
      microseconds; ls since when; lh who (see `holder`); lc his connection, by the server's id
fe    fence: how often the lock was taken, or taken away
tp    whose turn it is: the process that had the lock last; ts since when
wq    until when somebody may be waiting for the lock; wr until when it is kept for who waits
rw    written by who waits for replicas; it says nothing
cw    contended waits; fd holders found dead
====  ==========================================================================================

Beside it stand ``:free``, a list that who lets go pushes into, and ``:wait``, who waits until
when; both go by themselves. Commits are published on the channel ``:commits``. Values by key have
more, see `scripts_keyed`.

The lock is a lease. Who has overstayed it may still commit, as long as nobody has come: then the
fence is what it was. A process may take it again and again for three milliseconds, its turn. When
that is over, who waits in line comes next: for two milliseconds the lock is only for those. A
shorter turn, and an order of who waits, were measured: the longest wait of four processes gets
shorter by a fifth to a half, at the price of about a tenth of their rate.

Each script checks the region's id first. What one returns begins with a word: ``gone`` for another
region, ``held`` with who has the lock, ``lost`` and ``stale`` for a holder who has it no more,
``conflict``, ``full``.
"""

from __future__ import annotations

from typing import Final

from .wire import Script

PRELUDE: Final = """
local K, W, Q = KEYS[1], KEYS[2], KEYS[3]
local A = ARGV
local clock
local function now()
  if not clock then
    local t = redis.call('TIME')
    clock = t[1] * 1000000 + t[2]
  end
  return clock
end
local function num(x) return string.format('%.0f', x) end
local function taken(lt)
  return lt and lt ~= '' and tonumber(redis.call('HGET', K, 'lu')) > now()
end
local function has_it(lt, token, fence)
  -- The holder; or who overstayed, where nobody has come since.
  return lt == token or (not taken(lt) and redis.call('HGET', K, 'fe') == fence)
end
local function wake_one()
  if redis.call('LLEN', W) == 0 then
    redis.call('LPUSH', W, '1')
    redis.call('PEXPIRE', W, 2000)
  end
end
local function let_go(wq, ts)
  -- After a turn that was long enough, who waits comes next.
  if wq and tonumber(wq) > now() and now() - (ts or 0) >= 3000 then
    redis.call('ZREMRANGEBYSCORE', Q, '-inf', num(now()))
    if redis.call('ZCARD', Q) > 0 then
      redis.call('HSET', K, 'wr', num(now() + 2000))
      wake_one()
    end
  end
end
local function found(ct, tag)
  if not ct then return end
  local at = string.find(ct, string.sub(tag, 1, 8), 1, true)
  if at and (at - 1) % 24 == 0 then
    return at, string.sub(ct, at, at + 15) == tag and struct.unpack('<I8', string.sub(ct, at + 16))
  end
end
local function noted(ct, at, tag, v)
  ct = ct or ''
  if at then ct = string.sub(ct, 1, at - 1) .. string.sub(ct, at + 24) end
  return tag .. struct.pack('<I8', v) .. string.sub(ct, 1, 24 * 31)
end
"""

TAKE_LOCK: Final = (
    PRELUDE
    + """
-- id, token, lease, who, client
local h = redis.call('HMGET', K, 'id', 'v', 'lt', 'wq', 'wr', 'fe', 'tp', 'ts')
if h[1] ~= ARGV[1] then return {'gone'} end
local mine = h[3] == ARGV[2]
local in_line = h[4] and tonumber(h[4]) > now() and redis.call('ZSCORE', Q, ARGV[2])
local kept = h[5] and tonumber(h[5]) > now() and not in_line
local held = not mine and taken(h[3])
if held or kept then
  local most = num(now() + 1500000)
  redis.call('ZADD', Q, most, ARGV[2])
  redis.call('PEXPIRE', Q, 5000)
  redis.call('HSET', K, 'wq', most)
  if held then
    local l = redis.call('HMGET', K, 'lh', 'ls', 'lu', 'lc')
    return {'held', h[3], l[1], num(now() - l[2]), num(l[3] - now()), l[4],
            num(now() - (h[8] or 0))}
  end
  return {'held', '', '', '0', num(h[5] - now()), '', '0'}
end
local died = ''
if h[3] and h[3] ~= '' and not mine then
  died = redis.call('HGET', K, 'lh')
  redis.call('HINCRBY', K, 'fd', 1)
end
if in_line then redis.call('ZREM', Q, ARGV[2]); redis.call('HINCRBY', K, 'cw', 1) end
if h[5] then redis.call('HDEL', K, 'wr') end
local fence = num(tonumber(h[6]) + 1)
local since = num(now())
local turn = string.sub(ARGV[2], 1, 8)
-- A new turn: who waits next has to look again soon, for nobody tells when it is let go within.
if h[7] ~= turn and h[4] and tonumber(h[4]) > now() and redis.call('ZCARD', Q) > 0 then
  wake_one()
end
redis.call('HSET', K, 'lt', ARGV[2], 'lu', num(now() + ARGV[3]), 'lh', ARGV[4], 'ls', since,
           'lc', ARGV[5], 'fe', fence, 'tp', turn, 'ts', h[7] == turn and h[8] or since)
"""
)

TAKE: Final = Script(
    TAKE_LOCK
    + """
-- known version
if h[2] == ARGV[6] then return {'took', fence, died, h[2]} end
return {'took', fence, died, h[2], redis.call('HGET', K, 'f')}
"""
)

COMMITTING: Final = """
-- id, token, fence, base, tag, last, lease, blob; dry: change nothing, and say what would be
local function commit(dry)
  local h = redis.call('HMGET', K, 'id', 'v', 'lt', 'ct', 'wq', 'ts')
  if h[1] ~= A[1] then return {'gone'} end
  local at, made = found(h[4], A[5])
  if made then return {'ok', num(made)} end
  if not has_it(h[3], A[2], A[3]) then return {'lost', h[2]} end
  if h[2] ~= A[4] then return {'stale', h[2]} end
  local v = tonumber(h[2]) + 1
  local ct, told = noted(h[4], at, A[5], v), num(v)
  if dry then return {'ok', told} end
  if A[6] == '1' then
    redis.call('HSET', K, 'v', told, 'f', A[8], 'ct', ct, 'lt', '')
    let_go(h[5], h[6])
  else
    redis.call('HSET', K, 'v', told, 'f', A[8], 'ct', ct, 'lu', num(now() + A[7]))
  end
  redis.call('PUBLISH', K .. ':commits', told)
  return {'ok', told}
end
"""

COMMIT: Final = Script(PRELUDE + COMMITTING + "return commit()")

PUT: Final = Script(
    PRELUDE
    + """
-- id, tag, expected version or '', blob
local h = redis.call('HMGET', K, 'id', 'v', 'lt', 'ct', 'wr')
if h[1] ~= ARGV[1] then return {'gone'} end
local at, made = found(h[4], ARGV[2])
if made then return {'ok', num(made)} end
if taken(h[3]) or (h[5] and tonumber(h[5]) > now()) then return {'held'} end
if ARGV[3] ~= '' and ARGV[3] ~= h[2] then return {'conflict', h[2]} end
local v = tonumber(h[2]) + 1
local told = num(v)
redis.call('HSET', K, 'v', told, 'f', ARGV[4], 'ct', noted(h[4], at, ARGV[2], v))
redis.call('PUBLISH', K .. ':commits', told)
return {'ok', told}
"""
)

RELEASE: Final = Script(
    PRELUDE
    + """
-- id, token
local h = redis.call('HMGET', K, 'id', 'lt', 'wq', 'ts')
if h[1] ~= ARGV[1] then return {'gone'} end
if h[3] then redis.call('ZREM', Q, ARGV[2]) end
if h[2] == ARGV[2] then
  redis.call('HSET', K, 'lt', '')
  let_go(h[3], h[4])
end
return {'ok'}
"""
)

BREAK: Final = Script(
    PRELUDE
    + """
-- id, token of a holder that is gone
local h = redis.call('HMGET', K, 'id', 'lt', 'wq')
if h[1] ~= ARGV[1] then return {'gone'} end
if h[2] == ARGV[2] then
  redis.call('HINCRBY', K, 'fd', 1)
  redis.call('HINCRBY', K, 'fe', 1)
  redis.call('HSET', K, 'lt', '')
  let_go(h[3], 0)
end
return {'ok'}
"""
)

CREATE_HASH: Final = (
    PRELUDE
    + """
-- id, kind, max, python, signed
if redis.call('EXISTS', K) == 1 then return {'there'} end
redis.call('UNLINK', unpack(KEYS))
redis.call('HSET', K, 'id', ARGV[1], 'kind', ARGV[2], 'max', ARGV[3], 'py', ARGV[4],
           'sg', ARGV[5], 'v', '0', 'fmt', '1', 'fe', '0')
"""
)

CREATE: Final = Script(
    CREATE_HASH
    + """
-- blob, if there is one
if ARGV[6] then redis.call('HSET', K, 'v', '1', 'f', ARGV[6]) end
return {'made'}
"""
)

TOUCH: Final = Script("""
-- id
if redis.call('HGET', KEYS[1], 'id') == ARGV[1] then redis.call('HSET', KEYS[1], 'rw', '1') end
return {'ok'}
""")

UNLINK: Final = Script("""
-- id
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return {'gone'} end
redis.call('UNLINK', unpack(KEYS))
return {'ok'}
""")
