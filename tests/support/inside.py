"""The one place in the tests that knows the package's private names.

Whoever moves or renames something inside the package changes this file, and no other test:

- ``inside.NAME`` is what stands in a private module, by a plain name (`PLACES`);
  ``*inside.at("NAME")`` is where it stands, for ``monkeypatch.setattr``; and
  ``inside.put("NAME", value)`` sets it for good.
- ``inside.words_of(region)`` is a private attribute, ``inside.words_of.set(region, words)`` sets
  it; ``inside.load_head(region)`` calls a private method.
- ``lock_of(share)``, ``claim_of(share)`` and so on are ways that lead through several objects.

Modules are imported when something in them is asked for: lean processes stay lean.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import attrs

PLACES = {
    # --- _areas
    "region_allocated": "_areas.Areas.allocated",
    "areas_turn": "_areas.Areas.turn",
    # --- _async
    "Bell_in_async": "_async.Bell",
    # --- _blame
    "BLAME_SECONDS": "_blame._SECONDS",
    # --- _card
    "card_size": "_card.size",
    "card_table": "_card.table",
    # --- _closed
    "CLOSED": "_closed.CLOSED",
    "has_gil": "_closed.has_gil",
    # --- _codec
    "dump_of_codec": "_codec._dump",
    "loads_of_codec": "_codec._loads",
    "taken_by_value": "_codec._taken_by_value",
    "blame_in_codec": "_codec.blame",
    "decode": "_codec.decode",
    "encode": "_codec.encode",
    "needs_of": "_codec.needs_of",
    "recover": "_codec.recover",
    # --- _content
    "CONTENT_MOST": "_content._MOST",
    "content_of": "_content.content_of",
    "importable": "_content.importable",
    # --- _deadlock
    "WAITS_FD": "_status.WAITS_FD",
    "WAITS_ID": "_status.WAITS_ID",
    "WAITS_PID": "_status.WAITS_PID",
    "Watch": "_deadlock.Watch",
    "watch_over": "_deadlock.Watch.over",
    "WAITS": "_deadlock._WAITS",
    "deadlock_header": "_deadlock._header",
    "deadlock_words": "_deadlock._words",
    "all_locks": "_deadlock.all_locks",
    "deadlock_locks": "_deadlock.locks",
    # --- _definitions
    "stream_of": "_definitions.stream_of",
    # --- _descent
    "descent_marks": "_descent._marks",
    "descendant": "_descent.descendant",
    "mark_of": "_descent.mark_of",
    # --- _descriptor
    "Descriptor": "_descriptor.Descriptor",
    "lifted": "_descriptor._lifted",
    "duplicate_of": "_descriptor.duplicate_of",
    "offset_of_descriptor": "_descriptor.offset",
    # --- _dict
    "KEY_CODEC": "_dict._KEYS",
    "kind_of_memory_in_dict": "_dict.kind_of_memory",
    "loads_in_dict": "_dict.loads",
    "recover_in_dict": "_dict.recover",
    # --- _door
    "Door": "_door.Door",
    "process_lock_close": "_door.Door.close",
    "process_lock_reopened": "_door.Door.reopened",
    "RELEASE": "_door.RELEASE",
    "TRY": "_door.TRY",
    # --- _draft
    "draft_pop": "_draft.Draft.pop",
    "changes_of_draft": "_draft.MappingView._changes",
    # --- _futex
    "FUTEX": "_futex.FUTEX",
    "Futex": "_futex.Futex",
    "FUTEX_NUMBERS": "_futex._NUMBERS",
    "futex": "_futex._futex",
    "futex_sleep": "_futex.sleep",
    "futex_wake": "_futex.wake",
    # --- _glance
    "Conflict": "_glance.Conflict",
    # --- _guard
    "table_digits": "_guard._digits",
    "table_number": "_guard._number",
    "from_first_instruction": "_guard.from_first_instruction",
    # --- _handle
    "Handle": "_handle.Handle",
    "Place": "_handle.Place",
    "place_lives": "_handle.Place.lives",
    "handed_out": "_handle._handed_out",
    "open_handle": "_handle._open",
    "open_here": "_handle._open_here",
    "own_place": "_handle._own_place",
    "attrs_in_handle": "_handle.attrs",
    "forget_open": "_handle.forget",
    "is_reached": "_handle.is_reached",
    "holders_in_handle": "_handle.holders",
    "named_handle": "_references.named",
    "handle_of": "_handle.of",
    "open_shares": "_handle.open_shares",
    "os_in_handle": "_handle.os",
    "reach_handle": "_handle.reach",
    "register_open": "_handle.register",
    # --- _index
    "Index": "_keyed.KeyedStore",
    "index_rewrite": "_keyed.KeyedStore._rewrite",
    "index_try_read": "_keyed.KeyedStore._try_read",
    "index_commit": "_keyed.KeyedStore.commit",
    "index_frames": "_keyed.KeyedStore.frames",
    "index_refresh": "_keyed.KeyedStore.refresh",
    "index_stands": "_keyed.KeyedStore.stands",
    "State": "_index.State",
    "SPARE_BYTES": "_index.SPARE_BYTES",
    "SPARE_KEYS": "_keyed._SPARE_KEYS",
    # --- _keyed
    "ORDERED_STORES_in_keyed": "_keyed.ORDERED_STORES",
    "keyed_newest": "_keyed.KeyedStore.newest",
    # --- _known
    "workshop_stored": "_known.Workshop.stored",
    "HOT_MOST": "_known._HOT",
    "hot": "_known._hot",
    "known_by_address": "_known.by_address",
    "known_by_key": "_known.by_key",
    "known_unpicklable": "_known.unpicklable",
    # --- _layout
    "ALLOCATED": "_layout.ALLOCATED",
    "FLOOR": "_layout.FLOOR",
    "HEADER_BYTES": "_layout.HEADER_BYTES",
    "HEAD_BYTES": "_layout.HEAD_BYTES",
    "Head": "_layout.Head",
    "IDENTITY_BYTES": "_layout.IDENTITY_BYTES",
    "Identity": "_layout.Identity",
    "LOCK_WORDS": "_status.LOCK_WORDS",
    "MAGIC": "_layout.MAGIC",
    "ONE_KEY": "_layout.ONE_KEY",
    "RECORD_BYTES": "_layout.RECORD_BYTES",
    "SLOTS": "_layout.SLOTS",
    "VERSION": "_layout.VERSION",
    "check_of_layout": "_layout._check",
    "IDENTITY_STRUCT": "_layout._identity",
    "align": "_layout.align",
    "area_of": "_layout.area_of",
    "crc32": "_layout.crc32",
    "frame_extents": "_layout.frame_extents",
    "pack_head": "_layout.pack_head",
    "pack_record": "_layout.pack_record",
    "pack_table": "_layout.pack_table",
    "pack_word": "_layout.pack_word",
    "table_bytes": "_layout.table_bytes",
    "unpack_head": "_layout.unpack_head",
    "unpack_head_words": "_layout.unpack_head_words",
    # --- _lock
    "CONTENDED": "_status.CONTENDED",
    "Closing": "_lock.Closing",
    "FOUND_DEAD": "_status.FOUND_DEAD",
    "HOLDER": "_status.HOLDER",
    "LEASE": "_status.LEASE",
    "Lock": "_lock.Lock",
    "lock_enter_process": "_lock.Lock._enter_process",
    "lock_let_go": "_lock.Lock._let_go",
    "lock_report_dead": "_lock.Lock._report_dead",
    "lock_acquire": "_lock.Lock.acquire",
    "lock_acquire_async": "_lock.Lock.acquire_async",
    "lock_claim": "_lock.Lock.claim",
    "lock_release": "_lock.Lock.release",
    "QUEUED": "_status.QUEUED",
    "SINCE": "_status.SINCE",
    "GATE_RECHECK_S": "_lock._GATE_RECHECK_S",
    "LEASE_MOST_NS": "_lock._LEASE_MOST_NS",
    "WATCH_S": "_lock._WATCH_S",
    "WAY_S": "_lock._WAY_S",
    "Waiter": "_lock._Waiter",
    "called": "_lock._called",
    # --- _log
    "LOG_BASE": "_log.BASE",
    "LOG_END": "_log.END",
    "log_put": "_log.Log._put",
    "log_append": "_log.Log.append",
    "log_append_one": "_log.Log.append_one",
    "log_has_room": "_log.Log.has_room",
    "log_rewrite": "_log.Log.rewrite",
    "log_stands": "_log.Log.stands",
    "LOG_RUN": "_log.RUN",
    "LOG_V": "_log.V",
    "LOG_KEEP_BYTES": "_log._KEEP_BYTES",
    "LOG_WALK_BYTES": "_log._WALK_BYTES",
    "crc32_in_log": "_log.crc32",
    # --- _memory
    "Segment": "_memory.Segment",
    "segment_map": "_memory.Segment._map",
    "segment_allocate": "_memory.Segment.allocate",
    "segment_close": "_memory.Segment.close",
    "segment_create": "_memory.Segment.create",
    "segment_give_back": "_memory.Segment.give_back",
    "HUGE_LEAST": "_bytes._HUGE_LEAST",
    "SEAL_SHRINK": "_memory._SEAL_SHRINK",
    "remove_folder": "_memory._remove",
    "spare_strangers": "_memory._spare_strangers",
    "unmap": "_memory._unmap",
    "private_copy": "_bytes.private_copy",
    # --- _nested
    "Joined": "_nested.Joined",
    "is_apart": "_nested._is_apart",
    # --- _optimistic
    "seen_places_still_stand": "_optimistic.SeenPlaces.still_stand",
    # --- _order
    "Begun": "_order.Begun",
    "begun_keys": "_order.Begun.keys",
    "Places": "_order.Places",
    "Front": "_order._Front",
    "front_init": "_order._Front.__init__",
    # --- _own
    "EXITS": "_own.EXITS",
    # --- _owner
    "ENDED": "_owner.ENDED",
    "ThreadOwner": "_owner._Thread",
    "claim_by": "_owner.claim_by",
    "current_owner": "_owner.current_owner",
    "has_ended": "_owner.has_ended",
    "here": "_owner.here",
    "in_steps": "_owner.in_steps",
    "in_trio": "_owner.in_trio",
    "shares_thread": "_owner.shares_thread",
    "stands_still": "_owner.stands_still",
    # --- _pickler
    "dump_of_pickler": "_pickler._dump",
    "warm_in_pickler": "_pickler.warm",
    # --- _region
    "VALUE_END": "_value.END",
    "ORDERED_STORES_in_region": "_region.ORDERED_STORES",
    "VALUE_RUN": "_value.RUN",
    "Region": "_region.Region",
    "store_put": "_region.MemoryStore.put",
    "region_copy": "_value.ValueStore._copy",
    "region_copy_current": "_value.ValueStore._copy_current",
    "region_place": "_value.ValueStore._place",
    "region_publish_with_care": "_value.ValueStore._commit_with_care",
    "region_publish": "_region.Region.publish",
    "value_check": "_value.ValueStore._check",
    "value_commit": "_value.ValueStore.commit",
    "value_put": "_value.ValueStore._put",
    "region_read": "_value.ValueStore.read",
    "region_try_read": "_value.ValueStore.try_read",
    "VALUE_START": "_value.START",
    "VALUE_V": "_value.V",
    "ATTEMPTS_BEFORE_LOCK": "_region._ATTEMPTS_BEFORE_LOCK",
    "CACHED_BYTES": "_value._CACHED_BYTES",
    "EMPTY_COMMIT": "_value._EMPTY",
    "VALUE_KEEP_BYTES": "_value._KEEP_BYTES",
    "NOTHING_SEEN": "_value._NOTHING",
    "UNREAD_COMMIT": "_value._UNREAD",
    "WINDOW_LEAST": "_value._WINDOW_LEAST",
    "WINDOW_MOST": "_value.WINDOW_MOST",
    "WINDOW_RECORDS": "_value._WINDOW_RECORDS",
    "live_regions": "_region._live",
    "machine": "_region._machine",
    # --- _sameness
    "Trusts": "_sameness.Trusts",
    "SAMENESS_ALWAYS": "_sameness._ALWAYS",
    "ORDERED_BYTES_MOST": "_sameness._ORDERED_BYTES_MOST",
    "ordered_frames_of": "_sameness._Ordered.frames_of",
    "same_but_for_sets": "_sameness._same_but_for_sets",
    "decode_in_sameness": "_sameness.decode",
    # --- _search
    "PROC": "_search.PROC",
    "holders": "_search.holders",
    "own_namespace": "_search.own_namespace",
    "start_of": "_search.start_of",
    "why_not": "_search.why_not",
    # --- _shape
    "shape_files": "_shape._files",
    "shape_of": "_shape.shape_of",
    "source_of": "_shape.source_of",
    # --- _share
    "Region_in_share": "_share.Region",
    "kind_of_memory_in_share": "_share.kind_of_memory",
    # --- _shared
    "open_shared": "_shared._open_shared",
    # --- _tensors
    "reducers": "_tensors.reducers",
    # --- _together
    "Together": "_together.Together",
    "together_leave": "_together.Together._leave",
    # --- _transaction
    "JOINED": "_transaction.JOINED",
    "Transaction": "_transaction.Transaction",
    "transaction_join": "_transaction.Transaction._join",
    "transaction_exit": "_transaction.Transaction.__exit__",
    # --- _unloadable
    "SCANNED_BYTES": "_unloadable._SCANNED_BYTES",
    "is_sound": "_unloadable.is_sound",
    "why_unloadable": "_unloadable.why",
    # --- _view
    "MISSING": "_view.MISSING",
    "ValueStore": "_value.ValueStore",
    "changes_of_view": "_view.View._changes",
    # --- _weak
    "members": "_weak.members",
    # --- _wait
    "NAP_S": "_wait.NAP_S",
    "WAIT_LEASE_NS": "_wait._LEASE_NS",
}
"""The plain name: the module in the package, and the name in it, perhaps behind a class's."""

FUTEX_MODULE = "mmapshare._futex"
"""The module that `Share.wait` imports when it is first called."""


def at(name: str) -> tuple[Any, str]:
    """The module or class in which that stands, and its name there."""
    module, *path, last = PLACES[name].split(".")
    owner: Any = importlib.import_module(f"mmapshare.{module}")
    for part in path:
        if not hasattr(owner, part):  # A module in a folder, that nobody has imported yet.
            importlib.import_module(f"{owner.__name__}.{part}")
        owner = getattr(owner, part)
    return owner, last


def put(name: str, value: Any) -> None:
    """Set it for as long as this process lives."""
    setattr(*at(name), value)


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(name)
    return getattr(*at(name))


def modules_with_constants() -> list[ModuleType]:
    """Those whose constants a scene of the proof may change."""
    names = ("_region", "_value", "_log", "_index", "_keyed", "_share", "_dict")
    return [importlib.import_module(f"mmapshare.{name}") for name in names]


@attrs.frozen
class Attribute:
    """A private attribute of objects."""

    name: str

    def __call__(self, of: Any) -> Any:
        return getattr(of, self.name)

    def set(self, of: Any, value: Any) -> None:
        setattr(of, self.name, value)


@attrs.frozen
class Method:
    """A private method; called with the object first."""

    name: str

    def __call__(self, of: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(of, self.name)(*args, **kwargs)


# --- Of shares and dicts ---------------------------------------------------------------------

store_of = Attribute("_store")  # Of a share or a dict: what it is stored in.
region_of = Attribute("_store")
index_of = Attribute("_store")
timeout_of = Attribute("_timeout")  # How long its blocks wait, as it was made.
view_class_of = Attribute("_view_class")
share_of = Attribute("_share")  # Of a decorated function.
summary = Method("_summary")  # What a card shows.


def kept_of(share: Any) -> Any:
    """What this process keeps alive of what a share holds."""
    return store_of(share).kept


def lock_of(share: Any) -> Any:
    """The lock of a share or a dict."""
    return region_of(share).lock


def claim_of(share: Any) -> Any:
    """Who has a share's lock within this process, or None."""
    return lock_of(share).claim


def header_of(share: Any) -> Any:
    """The words of a share's header."""
    return words_of(region_of(share))


def segment_of(share: Any) -> Any:
    """The memory itself: a mapping, its descriptors, its folder."""
    return store_of(share).region.segment


def region_id_of(share: Any) -> bytes:
    """What tells a region from all others."""
    region_id: bytes = store_of(share).region_id
    return region_id


def bind(share: Any, segment: Any) -> None:
    """Have a share that was made without its __init__ be one of that memory."""
    share._bind(type(share)._open_store(segment), None)


# --- Of regions ------------------------------------------------------------------------------

words_of = Attribute("_words")  # The header's words, by VERSION, FLOOR, ALLOCATED and so on.
map_of = Attribute("_map")  # The bytes.
region_words_of = Attribute("words")  # The same of a store's region.
region_map_of = Attribute("map")
log_words_of = Attribute("_words")  # The same of a log, which is a dict's.
log_map_of = Attribute("_map")
commit_of = Attribute("_commit")  # The newest one that this process has read or written.
seen_of = Attribute("_seen")  # The version and the value's frames that it has seen.
copy_extents = Method("_copy")
extent = Method("_extent")
extents = Method("_extents")
commit_with_care = Method("_commit_with_care")
put_value = Method("_put")  # Commits a change, of keys too; the version.


def put_commit(commit: Any) -> None:
    """Have a value committed by that, in a block and without one."""
    put("value_commit", commit)
    put("value_put", commit)


def replace_words(store: Any, words: Any) -> None:
    """Have all that looks at the header's words look at these, but for the lock."""
    store.region.words = store.region.areas._words = store._words = words
    if hasattr(store, "log"):
        store.log._words = words


def unread_state(store: Any) -> Any:
    """What a keyed store knows that has read nothing yet."""
    return type(store)(store.region, store._codec).state


def area_bytes_of(store: Any) -> int:
    """The size of one area."""
    return int(store.region.areas.bytes)


def area_start(store: Any, area: int) -> int:
    """Where an area begins."""
    return int(store.region.areas.start(area))


def put_words(store: Any, words: Any) -> None:
    """Have all that looks at a store's header look at these."""
    store._words = store.region.words = store.region.areas._words = words
    if hasattr(store, "log"):
        store.log._words = words


def fresh_state(store: Any) -> Any:
    """What a keyed store knows that has read nothing yet."""
    return type(store)(store.region, store._codec).state


def load_head(store: Any) -> Any:
    """What the slot of the newest version holds."""
    return store.region.load_head()


# --- Of segments -----------------------------------------------------------------------------

finalizer_of = Attribute("_finalizer")
hidden_of = Attribute("_hidden")
users_of = Attribute("_users")
path_of = Attribute("_path")  # Of a process lock: what it is opened by.

# --- Of locks --------------------------------------------------------------------------------

lock_words_of = Attribute("words")  # By HOLDER, LEASE and so on.
process_lock_of = Attribute("_door")
descriptor_of = Attribute("_fd")
flock_of = Attribute("_flock")  # The system call.
gate_of = Attribute("_gate")  # Who has it within this process, under the key 0.
waiters_of = Attribute("_waiters")  # Who waits within this process, as weak references.
queue_of = Attribute("_queue")
clearing_of = Attribute("_clearing")
looked_ns_of = Attribute("_look_ns")  # When it last looked whether its descriptor is still its own.
owner_of = Attribute("_owner")  # Of a claim or a view.
clear = Method("_clear")
count = Method("_count")
line_up = Method("_line_up")
somebody_waits_long = Method("_somebody_waits_long")
try_process_lock = Method("_try_door")
wake_first = Method("_wake_first")

# --- Of views and blocks ---------------------------------------------------------------------

value_of = Attribute("_value")
view_of = Attribute("_view")
failed_of = Attribute("_failed")
role_of = Attribute("_role")
give_up = Method("_give_up")
