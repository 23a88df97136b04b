"""What the server runs for values by key.

Beside the hash and what it has for the lock (see `scripts`) there are

- ``:heads``, a hash: field -> head, which is ``UNSIGNED``, or ``SIGNED`` and a signature, and then
  the version that set the value, the key's serial number, the value's size, 8 bytes each, and the
  key's pickle;
- ``:values``, a hash: field -> the value's frames (see `sealing`);
- ``:changed``, a sorted set: field -> the version that changed it last, of deleted ones too. So
  who has seen version N asks for what has changed since. Of 10 000 deleted ones the older are
  forgotten, and ``tv`` says up to which version: who is as old as that reads everything anew.

The order of the keys is that of their serial numbers. The hash has also: ``sq`` the last serial
number, ``lb`` the sum of sizes, ``np`` how many keys have a field that does not say what equals
them (see `fields`).
"""

from __future__ import annotations

from typing import Final

from .scripts import CREATE_HASH, PRELUDE, TAKE_LOCK
from .wire import Script

_KEYED: Final = """
local H, V, C = KEYS[4], KEYS[5], KEYS[6]
local function rest(head)
  if string.byte(head) == 3 then return string.sub(head, 34) end
  return string.sub(head, 2)
end
"""

_NEWS: Final = (
    _KEYED
    + """
local function news(v, since, most, first)
  -- field, version known of it...: those that are another are told
  local values = {}
  for i = first, #ARGV, 2 do
    local at = redis.call('ZSCORE', C, ARGV[i])
    if at and at ~= ARGV[i + 1] then
      values[#values + 1] = {ARGV[i], at, redis.call('HGET', V, ARGV[i])}
    end
  end
  if since == v then return {}, values end
  local h = redis.call('HMGET', K, 'tv')
  if tonumber(since) < tonumber(h[1] or '0') then return false, values end
  local fields = redis.call('ZRANGEBYSCORE', C, '(' .. since, '+inf', 'LIMIT', 0, most)
  if #fields == most then return false, values end
  local heads = {}
  for _, field in ipairs(fields) do
    heads[#heads + 1] = {field, redis.call('HGET', H, field)}
  end
  return heads, values
end
"""
)

TAKE_KEYED: Final = Script(
    TAKE_LOCK
    + _NEWS
    + """
-- since, (field, version)...
local heads, values = news(h[2], ARGV[6], 5000, 7)
return {'took', fence, died, h[2], redis.call('HGET', K, 'sq'), heads, values}
"""
)

FETCH: Final = Script(
    PRELUDE
    + _NEWS
    + """
-- id, since, (field, version)...
local h = redis.call('HMGET', K, 'id', 'v', 'sq')
if h[1] ~= ARGV[1] then return {'gone'} end
local heads, values = news(h[2], ARGV[2] == '' and h[2] or ARGV[2], 5000, 3)
return {'ok', h[2], h[3], heads, values}
"""
)

LIST: Final = Script(
    PRELUDE
    + _KEYED
    + """
-- id, whether values too
local h = redis.call('HMGET', K, 'id', 'v', 'sq')
if h[1] ~= ARGV[1] then return {'gone'} end
local values = {}
if ARGV[2] == '1' then values = redis.call('HGETALL', V) end
return {'ok', h[2], h[3], redis.call('HGETALL', H), values}
"""
)

_WRITE: Final = (
    _KEYED
    + """
-- number of gone, field...; (field, key, signature of the head or '', size, value)...
local function write(h_v, h_lb, h_max, h_sq, h_np, at, is_new, dry)
  local lb, sq, np = tonumber(h_lb or '0'), tonumber(h_sq or '0'), tonumber(h_np or '0')
  local before = lb
  local gone, sets, will_go = {}, {}, {}
  local count = tonumber(A[at])
  for i = at + 1, at + count do
    local head = redis.call('HGET', H, A[i])
    if head and not will_go[A[i]] then
      gone[#gone + 1] = A[i]
      will_go[A[i]] = true
      local _, _, size = struct.unpack('<I8I8I8', rest(head))
      lb = lb - size
    end
  end
  at = at + count + 1
  local only = #gone == 0 and #A == at + 4
  for i = at, #A, 5 do
    local field, size = A[i], tonumber(A[i + 3])
    local head = not will_go[field] and redis.call('HGET', H, field)
    local serial
    if head then
      local _, number, old = struct.unpack('<I8I8I8', rest(head))
      serial = number
      lb = lb - old
      if only and is_new and old == size
         and rest(redis.call('HGET', V, field)) == rest(A[i + 4]) then
        return 'same'
      end
    end
    lb = lb + size
    sets[#sets + 1] = {field, head and string.sub(rest(head), 25) or A[i + 1], A[i + 2],
                       size, A[i + 4], serial}
  end
  if lb > before and lb > tonumber(h_max) then return 'full', lb end
  local v = tonumber(h_v) + 1
  if dry then return v end
  for _, field in ipairs(gone) do
    redis.call('HDEL', V, field)
    redis.call('HDEL', H, field)
    redis.call('ZADD', C, v, field)
    if string.byte(field) == 112 then np = np - 1 end
  end
  for _, set in ipairs(sets) do
    local serial = set[6]
    if not serial then
      sq = sq + 1
      serial = sq
      if string.byte(set[1]) == 112 then np = np + 1 end
    end
    redis.call('HSET', H, set[1], (set[3] == '' and '\\1' or '\\3' .. set[3])
               .. struct.pack('<I8I8I8', v, serial, set[4]) .. set[2])
    redis.call('HSET', V, set[1], set[5])
    redis.call('ZADD', C, v, set[1])
  end
  if #gone > 0 and redis.call('ZCARD', C) > redis.call('HLEN', H) + 10000 then
    local old = redis.call('ZRANGE', C, 0, -1, 'WITHSCORES')
    local left = 5000
    for i = 1, #old, 2 do
      if left > 0 and redis.call('HEXISTS', H, old[i]) == 0 then
        redis.call('ZREM', C, old[i])
        redis.call('HSET', K, 'tv', old[i + 1])
        left = left - 1
      end
    end
  end
  return v, num(lb), num(sq), num(np)
end
"""
)

CREATE_KEYED: Final = Script(
    CREATE_HASH
    + _WRITE
    + """
-- as `write` wants it
if ARGV[7] then
  local v, lb, sq, np = write('0', '0', ARGV[3], '0', '0', 6, false)
  redis.call('HSET', K, 'v', num(v), 'lb', lb, 'sq', sq, 'np', np)
end
return {'made'}
"""
)

COMMITTING_KEYED: Final = (
    _WRITE
    + """
-- id, token, fence, base, tag, last, lease, and as `write` wants it; dry: change nothing
local function commit(dry)
  local h = redis.call('HMGET', K, 'id', 'v', 'lt', 'ct', 'wq', 'ts', 'lb', 'max', 'sq', 'np')
  if h[1] ~= A[1] then return {'gone'} end
  local at, made = found(h[4], A[5])
  if made then return {'ok', num(made)} end
  if not has_it(h[3], A[2], A[3]) then return {'lost', h[2]} end
  if h[2] ~= A[4] then return {'stale', h[2]} end
  local v, lb, sq, np = write(h[2], h[7], h[8], h[9], h[10], 8, false, dry)
  if v == 'full' then return {'full', num(lb)} end
  local ct, told = noted(h[4], at, A[5], v), num(v)
  if dry then return {'ok', told} end
  if A[6] == '1' then
    redis.call('HSET', K, 'v', told, 'lb', lb, 'sq', sq, 'np', np, 'ct', ct, 'lt', '')
    let_go(h[5], h[6])
  else
    redis.call('HSET', K, 'v', told, 'lb', lb, 'sq', sq, 'np', np, 'ct', ct,
               'lu', num(now() + A[7]))
  end
  redis.call('PUBLISH', K .. ':commits', told)
  return {'ok', told}
end
"""
)

COMMIT_KEYED: Final = Script(PRELUDE + COMMITTING_KEYED + "return commit()")

PUT_KEYED: Final = Script(
    PRELUDE
    + _WRITE
    + """
-- id, tag, expected version or '', and as `write` wants it
local h = redis.call('HMGET', K, 'id', 'v', 'lt', 'ct', 'wr', 'lb', 'max', 'sq', 'np')
if h[1] ~= ARGV[1] then return {'gone'} end
local at, made = found(h[4], ARGV[2])
if made then return {'ok', num(made)} end
if taken(h[3]) or (h[5] and tonumber(h[5]) > now()) then return {'held'} end
if ARGV[3] ~= '' and ARGV[3] ~= h[2] then return {'moved', h[2]} end
if ARGV[3] == '' and tonumber(h[9] or '0') > 0 then return {'moved', h[2]} end
local v, lb, sq, np = write(h[2], h[6], h[7], h[8], h[9], 4, true)
if v == 'same' then return {'same', h[2]} end
if v == 'full' then return {'full', num(lb)} end
local told = num(v)
redis.call('HSET', K, 'v', told, 'lb', lb, 'sq', sq, 'np', np,
           'ct', noted(h[4], at, ARGV[2], v))
redis.call('PUBLISH', K .. ':commits', told)
return {'ok', told}
"""
)
