"""Shares on a Redis or Valkey: the same contract, over a server that many hosts reach.

Knows the server and what stands there; redis-py is imported when the first such share is opened.
What a share is there: see `scripts` and `scripts_keyed`. What weakens beside memory: the lock is a
lease, since a host can be gone without a word; reads are round trips; and a commit that was
acknowledged is as safe as the server keeps it.

Past one server
---------------
A server runs one script at a time, and a block takes two of 20 to 40 microseconds each: one server
makes 10 000 to 20 000 blocks a second, however many hosts ask. Long before that, one *share* is
full: its blocks are one behind the other, each a round trip long at least, 2 000 a second on one
machine, 500 within a data centre. So first take shares apart, as among the processes of one
machine: what changes apart is a share of its own, and a `SharedDict` whose writers use `transact`
or single keys waits only where they meet.

**By name.** Shares have nothing to do with each other, so they may be on different servers. Choose
by the name, where it is opened, and the same on all hosts: ``servers[crc32(name) % len(servers)]``.
To add a server, move names one by one: lock, copy, unlink, then open anew; who still has the old
one gets `StoreLostError`. Nothing here moves them by itself: a commit belongs to one server, and a
name that is on two has two lives. What `locked` takes together from one database of one server is
committed by one script, all or none, whoever is killed; from two servers, one after the other.

**In a cluster.** All keys of a share have its name in braces, so they are in one slot, and each
node answers for its own; one node as the address is enough, since ``MOVED`` is followed. A name may
bring its braces: ``{team}jobs`` and ``{team}done`` are in one slot, on one node. While a slot is
moved, its share may be refused for a second, and is tried again. Across nodes nothing commits
together.

**Replicas.** They take no commit, and what they have lags. A failover can lose what was
acknowledged; who has seen it is told, once, by `StoreLostError`. ``?replicas=1`` waits until one
has it, which makes that rare and not impossible. Reading from replicas is not done: a value that
another process has been told of must not be older here.

**Across an ocean** a round trip takes 100 ms. A `get` takes one, a block two, and while it runs
nobody else is in: five blocks a second, for all hosts together. Keep a share with those who write
it, let the others read it, and let them `wait` instead of asking. Where both sides write, give each
a share of its own, and merge them when they are read.

**When to leave.** For a database: when what is stored must be queried, must outlive its program's
classes, or must not be lost when one machine is; when one transaction has to span what is on
several servers. For a queue: when messages are taken once each by many. For files: above some
megabytes a value, since each commit sends all of it.
"""
