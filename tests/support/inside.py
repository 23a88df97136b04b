"""The one place in the tests that knows the package's private names.

Whoever moves or renames something inside the package changes this file, and no other test:

- ``inside.NAME`` is what stands in a private module, by a plain name (`PLACES`);
  ``*inside.at("NAME")`` is where it stands, for ``monkeypatch.setattr``; and
  ``inside.put("NAME", value)`` sets it for good.
- ``inside.words_of(region)`` is a private attribute, ``inside.words_of.set(region, words)`` sets
  it; ``inside.load_slot(region)`` calls a private method.
- ``lock_of(share)``, ``token_of(share)`` and so on are ways that lead through several objects.

Modules are imported when something in them is asked for: lean processes stay lean.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

import attrs

PLACES = {
    # --- _store.areas
    "region_allocated": "_store.areas.Areas.allocated",
    "areas_turn": "_store.areas.Areas.turn",
    "free_place": "_store.areas.Areas.free_place",
    "shut": "_lock.descriptor.shut",
    # --- _store.redis
    "secrets_given": "_store.redis.address._secrets",
    "server_of": "_store.redis.address.server_of",
    "boot_of_holder": "_store.redis.holder._boot",
    "Holder": "_store.redis.holder.Holder",
    "this_process": "_store.redis.holder.this_process",
    "reply_from": "_store.redis.resp.reply_from",
    "body_of": "_store.redis.sealing.body_of",
    "frames_of": "_store.redis.sealing.frames_of",
    "open_found": "_store.redis.remote.Found.open_store",
    "give_name_on_server": "_store.redis.opening._give_name",
    "PUT_KEYED": "_store.redis.keyed.PUT_KEYED",
    "remote_sleeping": "_store.redis.remote.RemoteStore.sleeping",
    "lease_report_dead": "_store.redis.lease.Lease._report_dead",
    "put_value_at_once": "_store.redis.value.RemoteValueStore._put_at_once",
    "put_keys_at_once": "_store.redis.keyed.RemoteKeyedStore._put_at_once",
    "Connection": "_store.redis.wire.Connection",
    "connection_send": "_store.redis.wire.Connection.send",
    "wire_run": "_store.redis.wire.Wire.run",
    "connection_read": "_store.redis.wire.Connection.read",
    # --- _store.holds
    "GETLK": "_store.holds._GETLK",
    "LARGE_BYTES": "_store.holds.LARGE_BYTES",
    "all_held": "_store.holds.all_held",
    "hold": "_store.holds.hold",
    "held": "_store.holds.held",
    # --- _store.drafts
    "patch_draft": "_store.drafts.DraftStore._patches",
    "check_of_lag": "_store.drafts._check",
    "lagging": "_store.drafts.DraftStore._lagging",
    "PAGEMAP_WORDS_MOST": "_store.touched._WORDS_MOST",
    "LAG": "_store.format.LAG",
    "LAG_START": "_store.format.LAG_START",
    "LAG_RUNS": "_store.format.LAG_RUNS",
    # --- _store.patched
    "Patched": "_store.patched.Patched",
    "patch_of": "_store.patched.patch_of",
    "lay_over": "_store.patched.Patched.lay_over",
    "compaction_commit": "_store.compaction.Compaction.commit",
    "state_patch": "_store.index.State.patch",
    "laid_over": "_store.patched._laid_over",
    "within_frames": "_store.patched._within",
    "SPENT_PART": "_store.patched._SPENT_PART",
    "DRAFTS_KEPT": "_store.key_drafts._KEPT",
    # --- _store.named
    "NAMED_ATTEMPTS": "_store.named._ATTEMPTS",
    "boot": "_store.named._boot",
    "folder_of_names": "_store.address.folder_of_names",
    "is_in_memory": "_store.address.Address.is_in_memory",
    "find_in_folder": "_store.named._find",
    "is_at_home": "_store.named._is_at_home",
    "open_in_folder": "_store.folder.Folder.open",
    "named_of_segment": "_store.segment.Segment.named",
    # --- _store.folder
    "FOLDER_ATTEMPTS": "_store.folder._ATTEMPTS",
    "clear_of_folder": "_store.folder.Folder._clear",
    "give_name": "_store.folder.NewFile.give_name",
    "leads_to": "_store.folder.Folder.leads_to",
    "folder_sync": "_store.folder.Folder.sync",
    "file_system_of": "_store.folder._file_system",
    "is_memory": "_store.folder.is_memory",
    "BOOT": "_store.format.BOOT",
    "INODE": "_store.format.INODE",
    # --- _store.sound
    "newest_sound": "_store.sound.newest",
    "sound_slot": "_store.sound._sound",
    "checked_slot": "_store.sound.checked_slot",
    "crc32_of_sound": "_store.sound.crc32",
    # --- _store.file
    "checked_slot_of_file": "_store.file.checked_slot",
    "file_barrier": "_store.file.FileRegion.barrier",
    # --- _lock.loop
    "task_event": "_lock.loop.TaskBackend.event",
    # --- _codec.diagnose
    "BLAME_SECONDS": "_codec.diagnose._SECONDS",
    # --- _display.card
    "card_size": "_display.card.size",
    "card_table": "_display.card.table",
    # --- _closed
    "CLOSED": "_closed.CLOSED",
    "has_gil": "_closed.has_gil",
    # --- _codec.frames
    "buffered": "_codec.frames._buffered",
    "dump_of_codec": "_codec.frames._dump",
    "loads_of_codec": "_codec.frames._loads",
    "taken_by_value": "_codec.frames._taken_by_value",
    "blame_in_codec": "_codec.frames.blame",
    "unchanged": "_codec.sameness.unchanged",
    "check_keys": "_codec.frames.check_keys",
    "decode": "_codec.frames.decode",
    "encode": "_codec.frames.encode",
    "encode_key": "_codec.frames.encode_key",
    "needs_of": "_codec.frames.needs_of",
    "recover": "_codec.frames.recover",
    # --- _codec.content
    "CONTENT_MOST": "_codec.content._MOST",
    "content_of": "_codec.content.content_of",
    "importable": "_codec.content.importable",
    # --- _lock.deadlock
    "WAITS_FD": "_lock.status.WAITS_FD",
    "WAITS_ID": "_lock.status.WAITS_ID",
    "WAITS_PID": "_lock.status.WAITS_PID",
    "Watch": "_lock.deadlock.Watch",
    "watch_over": "_lock.deadlock.Watch.over",
    "WAITS": "_lock.deadlock._WAITS",
    "deadlock_header": "_lock.deadlock._header",
    "deadlock_words": "_lock.deadlock._words",
    "all_locks": "_lock.deadlock.all_locks",
    "deadlock_locks": "_lock.deadlock.locks",
    # --- _codec.definitions
    "stream_of": "_codec.definitions.stream_of",
    # --- _codec.descent
    "descent_marks": "_codec.descent._marks",
    "descendant": "_codec.descent.descendant",
    "mark_of": "_codec.descent.mark_of",
    # --- _lock.descriptor
    "Descriptor": "_lock.descriptor.Descriptor",
    "lifted": "_lock.descriptor._lifted",
    "duplicate_of": "_lock.descriptor.duplicate_of",
    "offset_of_descriptor": "_lock.descriptor.offset",
    # --- _dict
    "loads_in_dict": "_dict.loads",
    "recover_in_dict": "_dict.recover",
    # --- _share
    "loads_in_share": "_share.loads",
    "recover_in_share": "_share.recover",
    # --- _lock.process_lock
    "PATIENCE_NS": "_lock.process_lock._PATIENCE_NS",
    "ProcessLock": "_lock.process_lock.ProcessLock",
    "process_lock_close": "_lock.process_lock.ProcessLock.close",
    "process_lock_reopen": "_lock.process_lock.ProcessLock.reopen",
    "RELEASE": "_lock.process_lock.RELEASE",
    "TRY": "_lock.process_lock.TRY",
    # --- _lock.statx
    "by_statx": "_lock.statx.by_statx",
    # --- _transaction.mapping
    "draft_pop": "_transaction.mapping.Draft.pop",
    "changes_of_draft": "_transaction.mapping.MappingView._changes",
    # --- _lock.futex
    "FUTEX": "_lock.futex.FUTEX",
    "Futex": "_lock.futex.Futex",
    "FUTEX_NUMBERS": "_lock.futex._NUMBERS",
    "futex": "_lock.futex._futex",
    "futex_sleep": "_lock.futex.sleep",
    "futex_wake": "_lock.futex.wake",
    "Conflict": "_transaction.optimistic.Conflict",
    # --- _lock.interrupts
    "table_digits": "_lock.interrupts._digits",
    "table_number": "_lock.interrupts._number",
    "from_first_instruction": "_lock.interrupts.from_first_instruction",
    # --- _shared.registry
    "Handle": "_shared.registry.Handle",
    "Place": "_shared.registry.Place",
    "place_lives": "_shared.registry.Place.lives",
    "handed_out": "_shared.registry._handed_out",
    "open_handle": "_shared.registry._open",
    "open_here": "_shared.registry._open_here",
    "own_place": "_shared.registry._own_place",
    "attrs_in_handle": "_shared.registry.attrs",
    "forget_open": "_shared.registry.forget",
    "is_reached": "_shared.registry.is_reached",
    "holders_in_handle": "_shared.registry.holders",
    "named_handle": "_codec.references.named",
    "handle_of": "_shared.registry.of",
    "open_shares": "_shared.registry.open_shares",
    "os_in_handle": "_shared.registry.os",
    "reach_handle": "_shared.registry.reach",
    "register_open": "_shared.registry.register",
    # --- _store.index
    "Index": "_store.keyed.MemoryKeyedStore",
    "index_rewrite": "_store.keyed.MemoryKeyedStore._rewrite",
    "index_try_read": "_store.keyed.MemoryKeyedStore._try_read",
    "index_commit": "_store.keyed.MemoryKeyedStore.commit",
    "index_frames": "_store.keyed.MemoryKeyedStore.frames",
    "index_refresh": "_store.keyed.MemoryKeyedStore.refresh",
    "index_stands": "_store.keyed.MemoryKeyedStore.stands",
    "State": "_store.index.State",
    "SPARE_BYTES": "_store.index.SPARE_BYTES",
    "SPARE_KEYS": "_store.keyed._SPARE_KEYS",
    # --- _store.keyed
    "ORDERED_STORES_in_file": "_store.file.ORDERED_STORES",
    "in_order_in_file": "_store.file.in_order",
    "ORDERED_STORES_in_keyed": "_store.keyed.ORDERED_STORES",
    "keyed_newest": "_store.keyed.MemoryKeyedStore.newest",
    # --- _codec.known
    "workshop_stored": "_codec.known.Workshop.stored",
    "HOT_MOST": "_codec.known._HOT",
    "hot": "_codec.known._hot",
    "known_by_address": "_codec.known.by_address",
    "known_by_key": "_codec.known.by_key",
    "known_unpicklable": "_codec.known.unpicklable",
    # --- _store.format
    "ALLOCATED": "_store.format.ALLOCATED",
    "OLDEST_READABLE": "_store.format.OLDEST_READABLE",
    "HEADER_BYTES": "_store.format.HEADER_BYTES",
    "HOLDS": "_store.format.HOLDS",
    "SLOT_BYTES": "_store.format.SLOT_BYTES",
    "Slot": "_store.format.Slot",
    "IDENTITY_BYTES": "_store.format.IDENTITY_BYTES",
    "Identity": "_store.format.Identity",
    "LOCK_WORDS": "_lock.status.LOCK_WORDS",
    "MAGIC": "_store.format.MAGIC",
    "ONE_KEY": "_store.format.ONE_KEY",
    "RECORD_BYTES": "_store.format.RECORD_BYTES",
    "SLOTS": "_store.format.SLOTS",
    "VERSION": "_store.format.VERSION",
    "check_of_layout": "_store.format._check",
    "IDENTITY_STRUCT": "_store.format._identity",
    "align": "_store.format.align",
    "area_of": "_store.format.area_of",
    "FLAGS": "_store.format.FLAGS",
    "UNLINKED": "_store.format.UNLINKED",
    "crc32": "_store.format.crc32",
    "frame_extents": "_store.format.frame_extents",
    "pack_slot": "_store.format.pack_slot",
    "pack_record": "_store.format.pack_record",
    "pack_table": "_store.format.pack_table",
    "pack_word": "_store.format.pack_word",
    "table_bytes": "_store.format.table_bytes",
    "unpack_slot": "_store.format.unpack_slot",
    "unpack_slot_words": "_store.format.unpack_slot_words",
    # --- _lock.lock
    "CONTENDED": "_lock.status.CONTENDED",
    "ClosingToken": "_lock.token.ClosingToken",
    "FOUND_DEAD": "_lock.status.FOUND_DEAD",
    "HOLDER": "_lock.status.HOLDER",
    "LEASE": "_lock.status.LEASE",
    "Lock": "_lock.lock.Lock",
    "lock_enter_process": "_lock.lock.Lock._enter_process",
    "lock_let_go": "_lock.lock.Lock._let_go",
    "lock_report_dead": "_lock.lock.Lock._report_dead",
    "lock_acquire": "_lock.lock.Lock.acquire",
    "lock_acquire_async": "_lock.lock.Lock.acquire_async",
    "lock_token": "_lock.lock.Lock.token",
    "lock_release": "_lock.lock.Lock.release",
    "BLOCKED": "_lock.status.BLOCKED",
    "SINCE": "_lock.status.SINCE",
    "RECHECK_S": "_lock.queue._RECHECK_S",
    "LEASE_MOST_NS": "_lock.process_lock._LEASE_MOST_NS",
    "LOOK_S": "_lock.deadlock._LOOK_S",
    "WAY_S": "_lock.process_lock._WAY_S",
    "Waiter": "_lock.queue.Waiter",
    "called": "_proc.called",
    "count": "_lock.status.count",
    "say_blocked": "_lock.process_lock.say_blocked",
    "TASK": "_lock.loop.TASK",
    "THREAD": "_lock.hub.THREAD",
    "IN_CORE": "_lock.interrupts.IN_CORE",
    # --- _store.log
    "LOG_BASE": "_store.log.BASE",
    "LOG_END": "_store.log.END",
    "log_put": "_store.log.Log._put",
    "log_append": "_store.log.Log.append",
    "log_append_one": "_store.log.Log.append_one",
    "log_has_room": "_store.log.Log.has_room",
    "log_rewrite": "_store.log.Log.rewrite",
    "log_stands": "_store.log.Log.stands",
    "LOG_EPOCH": "_store.log.EPOCH",
    "LOG_V": "_store.log.V",
    "LOG_KEEP_BYTES": "_store.log._KEEP_BYTES",
    "LOG_WALK_BYTES": "_store.log._WALK_BYTES",
    "crc32_in_log": "_store.log.crc32",
    # --- _store.segment
    "Segment": "_store.segment.Segment",
    "segment_map": "_store.segment.Segment._map",
    "segment_allocate": "_store.segment.Segment.allocate",
    "segment_close": "_store.segment.Segment.close",
    "segment_create": "_store.segment.Segment.create",
    "segment_give_back": "_store.segment.Segment.give_back",
    "HUGE_LEAST": "_bytes._HUGE_LEAST",
    "SEAL_SHRINK": "_store.segment._SEAL_SHRINK",
    "remove_folder": "_store.segment._remove",
    "spare_strangers": "_store.segment._spare_strangers",
    "unmap": "_store.segment._unmap",
    "private_copy": "_bytes.private_copy",
    # --- _transaction.nested
    "Joined": "_transaction.nested.Joined",
    "is_apart": "_transaction.nested._is_apart",
    # --- _transaction.optimistic
    "read_set_is_valid_at": "_transaction.optimistic.ReadSet.is_valid_at",
    # --- _store.order
    "begun_keys": "_store.order.Begun.keys",
    "Places": "_store.order.Places",
    "Front": "_store.order._Front",
    "front_init": "_store.order._Front.__init__",
    # --- _transaction.own
    "EXITS": "_transaction.own.EXITS",
    # --- _lock.owner
    "ENDED": "_lock.owner.ENDED",
    "ThreadOwner": "_lock.owner._Thread",
    "token_by": "_lock.token.token_by",
    "current_owner": "_lock.lock.current_owner",
    "has_ended": "_lock.owner.has_ended",
    "here": "_lock.owner.here",
    "in_steps": "_lock.interrupts.in_steps",
    "in_trio": "_lock.owner.in_trio",
    "shares_thread": "_lock.owner.shares_thread",
    "stands_still": "_lock.owner.stands_still",
    # --- _codec.pickler
    "dump_of_pickler": "_codec.pickler._dump",
    # --- _codec.tensors
    "reducers": "_codec.tensors.preferred",
    "warm_in_pickler": "_codec.pickler.warm",
    # --- _store.region
    "VALUE_END": "_store.value.END",
    "Region_in_memory": "_store.memory.Region",
    "undisturbed_in_memory": "_store.memory.undisturbed",
    "ORDERED_STORES": "_store.region.ORDERED_STORES",
    "publish_in_order": "_store.region._publish_in_order",
    "in_order_in_region": "_store.region.in_order",
    "ORDERED_STORES_in_memory": "_store.memory.ORDERED_STORES",
    "VALUE_EPOCH": "_store.value.EPOCH",
    "Region": "_store.region.Region",
    "store_put": "_store.base.Store.put",
    "region_copy": "_store.value.MemoryValueStore._copy",
    "undisturbed_in_value": "_store.value.undisturbed",
    "region_place": "_store.value.MemoryValueStore._place",
    "region_publish_with_care": "_store.value.MemoryValueStore._commit_with_care",
    "region_publish": "_store.region.Region.publish",
    "value_check": "_store.base.ValueStore.check",
    "value_commit": "_store.value.MemoryValueStore.commit",
    "value_put": "_store.value.MemoryValueStore._put",
    "region_read": "_store.value.MemoryValueStore.read",
    "region_try_read": "_store.value.MemoryValueStore.try_read",
    "VALUE_START": "_store.value.START",
    "VALUE_V": "_store.value.V",
    "ATTEMPTS_BEFORE_LOCK": "_store.memory._ATTEMPTS_BEFORE_LOCK",
    "CACHED_BYTES": "_store.value._CACHED_BYTES",
    "EMPTY_COMMIT": "_store.value._EMPTY",
    "VALUE_KEEP_BYTES": "_store.value._KEEP_BYTES",
    "NOTHING_SEEN": "_store.value._NOTHING",
    "UNREAD_COMMIT": "_store.value._UNREAD",
    "WINDOW_LEAST": "_store.value._WINDOW_LEAST",
    "WINDOW_MOST": "_store.value.WINDOW_MOST",
    "WINDOW_RECORDS": "_store.value._WINDOW_RECORDS",
    "live_regions": "_store.region._live",
    "machine": "_store.region._machine",
    # --- _codec.sameness
    "Trusts": "_codec.sameness.Trusts",
    "SAMENESS_ALWAYS": "_codec.sameness._ALWAYS",
    "ORDERED_BYTES_MOST": "_codec.sameness._ORDERED_BYTES_MOST",
    "ordered_frames_of": "_codec.sameness._Ordered.frames_of",
    "same_but_for_sets": "_codec.sameness._same_but_for_sets",
    "decode_in_sameness": "_codec.sameness.decode",
    # --- _codec.placeholders
    "sketch": "_codec.placeholders.sketch",
    "placeholders": "_codec.placeholders",
    "codec": "_codec.frames",
    "resolve": "_codec.definitions.resolve",
    # --- _store.outside
    "Left": "_store.outside.Left",
    "OUTSIDE_PAUSE_S": "_store.outside._PAUSE_S",
    # --- _trace
    "TRACE_PAGE_BYTES": "_trace.recorder.PAGE_BYTES",
    "TRACE_PAGES_MOST": "_trace.recorder._PAGES_MOST",
    "trace_opened": "_trace.opened",
    "trace_start": "_trace.tracing.start",
    "trace_stop": "_trace.tracing.stop",
    "trace_svg": "_trace.showing.svg",
    "trace_chrome": "_trace.showing.chrome",
    "trace_summary": "_trace.showing.summary",
    "TraceOfRecording": "_trace.Trace",
    "TraceRecorder": "_trace.recorder.Recorder",
    "Event": "_trace.reading.Event",
    "Recording": "_trace.reading.Recording",
    # --- __main__
    "main_of_package": "__main__.main",
    # --- _cli
    "see": "_cli.looking.see",
    "everything_found": "_cli.finding.everything",
    "blocked": "_cli.finding.blocked",
    "found_by_id": "_cli.finding.one",
    "has_ended_of_watch": "_cli.following._has_ended",
    "watch": "_cli.following.watch",
    # --- _proc
    "PROC": "_proc.PROC",
    "holders": "_proc.holders",
    "own_namespace": "_proc.own_namespace",
    "start_of": "_proc.start_of",
    "why_not": "_proc.why_not",
    # --- _codec.fingerprint
    "shape_files": "_codec.fingerprint._files",
    "shape_of": "_codec.fingerprint.shape_of",
    "source_of": "_codec.fingerprint.source_of",
    "kind_of_memory": "_store.segment.kind_of_memory",
    # --- _compiled
    "bound_core": "_compiled._bound",
    "is_of_before": "_compiled._is_of_before",
    # --- _shared.base
    "Shared": "_shared.base.Shared",
    "open_shared": "_shared.base._open_shared",
    # --- _transaction.several
    "Together": "_transaction.several.Together",
    "together_leave": "_transaction.several.Together._leave",
    # --- _transaction.block
    "JOINED": "_transaction.block.JOINED",
    "Transaction": "_transaction.block.Transaction",
    "transaction_join": "_transaction.block.Transaction._join",
    "transaction_exit": "_transaction.block.Transaction.__exit__",
    # --- _codec.unloadable
    "SCANNED_BYTES": "_codec.unloadable._SCANNED_BYTES",
    "is_sound": "_codec.unloadable.is_sound",
    "why_unloadable": "_codec.unloadable.why",
    # --- _transaction.view
    "MISSING": "_transaction.view.MISSING",
    "MemoryValueStore": "_store.value.MemoryValueStore",
    "view_abandoned": "_transaction.view.View._abandoned",
    "changes_of_view": "_transaction.view.View._changes",
    # --- _store.base
    "KeyedStore": "_store.base.KeyedStore",
    "Stats": "_store.base.Stats",
    "ValueStore": "_store.base.ValueStore",
    "too_large": "_store.base.too_large",
    # --- _weak
    "members": "_weak.members",
    # --- _shared.wait
    "NAP_S": "_shared.wait.NAP_S",
    "WAIT_LEASE_NS": "_shared.wait._LEASE_NS",
}
"""The plain name: the module in the package, and the name in it, perhaps behind a class's."""

FUTEX_MODULE = "mmapshare._lock.futex"
"""The module that `Share.wait` imports when it is first called."""


CORE_MODULE = "mmapshare._core"
"""The compiled core's module, where it was built."""
CORE_FILE = "mmapshare/_core.c"
"""What it is built of."""
MIRRORED: Final = (
    "_codec.frames.", "_dict.", "_lock.futex.wake", "_lock.lock.", "_lock.process_lock.", "_share.",
    "_store.base.", "_store.format.", "_store.index.", "_store.keyed.", "_store.log.",
    "_store.memory.", "_store.region.", "_store.value.", "_transaction.block.",
    "_transaction.mapping.", "_transaction.view.",
)  # fmt: skip
"""Of these the compiled core has a part of its own: who puts another thing there is of Python's."""


def use(core: str) -> str:
    """Have this process work by "c" or by "python"; what it works by then."""
    cores: Any = importlib.import_module("mmapshare._cores")
    return str(cores.use(core))


def used() -> str:
    """What this process works by."""
    cores: Any = importlib.import_module("mmapshare._cores")
    return str(cores.used)


def is_built() -> bool:
    """Whether the compiled core is there, whichever one works."""
    cores: Any = importlib.import_module("mmapshare._cores")
    return "c" in cores.methods


def of_python(cls: type, name: str) -> Any:
    """A method of Python's core, whichever one works."""
    cores: Any = importlib.import_module("mmapshare._cores")
    return cores.methods["python"].get((cls, name), vars(cls)[name])


def at(name: str) -> tuple[Any, str]:
    """The module or class in which that stands, and its name there, for who puts another there.

    From then on, and in a test until its end, this process works by Python's core.
    """
    if PLACES[name].startswith(MIRRORED):
        use("python")
    return _at(name)


def _at(name: str) -> tuple[Any, str]:
    module, *path, last = PLACES[name].split(".")
    owner: Any = importlib.import_module(f"mmapshare.{module}")
    for part in path:
        within = f"{owner.__name__}.{part}" if isinstance(owner, ModuleType) else ""
        # A module in a folder: perhaps not imported yet, or anew, which its folder does not know.
        if within in sys.modules or not hasattr(owner, part):
            owner = importlib.import_module(within)
        else:
            owner = getattr(owner, part)
    return owner, last


def put(name: str, value: Any) -> None:
    """Set it for as long as this process lives."""
    setattr(*at(name), value)


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(name)
    return getattr(*_at(name))


def modules_with_constants() -> list[ModuleType]:
    """Those whose constants a scene of the proof may change."""
    names = ("region", "value", "log", "index", "keyed")
    rooms = [*(f"_store.{name}" for name in names), "_share", "_dict"]
    return [importlib.import_module(f"mmapshare.{name}") for name in rooms]


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
lease_prefix = Attribute("_prefix")
index_in_store = Attribute("_index")  # Of a dict's store on a server.
share_of = Attribute("_share")  # Of a decorated function.
summary = Method("_summary")  # What a card shows.


def move_to(share: Any, store: Any) -> None:
    """Have a share that was just made keep its first commit, and all others, in another store."""
    real = store_of(share)
    importlib.import_module("mmapshare._shared.registry").forget(share)
    if hasattr(real, "glimpse"):
        if real.version:
            store.commit(real.read()[1])
    elif real.version:
        image = real.image()
        changed = [(key, image.frames(place)) for key, place in image.places.items()]
        store.commit(((), changed, image.definitions))
    share._store = store
    real.close()


def kept_of(share: Any) -> Any:
    """What this process keeps alive of what a share holds."""
    return store_of(share).kept


@contextlib.contextmanager
def as_it_was(wire: Any, run: Any) -> Iterator[None]:
    """Have a wire run its scripts that way."""
    before, wire.run = wire.run, run
    try:
        yield
    finally:
        wire.run = before


def forget_seen(store: Any) -> None:
    """Let a store on a server have seen no version of any value."""
    if hasattr(store, "_seen"):
        store._seen = (-1, None)
    else:
        store._values = type(store._values)()


def lock_of(share: Any) -> Any:
    """The lock of a share or a dict."""
    return region_of(share).lock


def token_of(share: Any) -> Any:
    """Who has a share's lock within this process, or None."""
    return lock_of(share).token


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


def outside_of(share: Any) -> Any:
    """A share's region as who has no part in it sees it."""
    outside: Any = importlib.import_module("mmapshare._store.outside")
    return outside.Outside.open(f"/proc/self/fd/{segment_of(share).fd}")


def bind(share: Any, segment: Any) -> None:
    """Have a share that was made without its __init__ be one of that memory."""
    share._bind(type(share)._open_store(segment), None)


# --- Of regions ------------------------------------------------------------------------------

words_of = Attribute("_words")  # The header's words, by VERSION, ALLOCATED and so on.
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


def areas_of(share: Any) -> Any:
    """The two areas of a share's region."""
    return store_of(share).region.areas


start_of_area = Method("start")  # Of the areas themselves.
number_of_area = Method("of")


def put_words(store: Any, words: Any) -> None:
    """Have all that looks at a store's header look at these."""
    store._words = store.region.words = store.region.areas._words = words
    if hasattr(store, "log"):
        store.log._words = words


def fresh_state(store: Any) -> Any:
    """What a keyed store knows that has read nothing yet."""
    return type(store)(store.region, store._codec).state


def load_slot(store: Any) -> Any:
    """What the slot of the newest version holds."""
    return store.region.load_slot()


# --- Of segments -----------------------------------------------------------------------------

finalizer_of = Attribute("_finalizer")
hidden_of = Attribute("_hidden")
users_of = Attribute("_users")
path_of = Attribute("_path")  # Of a process lock: what it is opened by.

# --- Of locks --------------------------------------------------------------------------------

lock_words_of = Attribute("words")  # By HOLDER, LEASE and so on.
process_lock_of = Attribute("process_lock")
descriptor_of = Attribute("_fd")
thread_lock_of = Attribute("thread_lock")  # Who has it within this process, under the key 0.
waiters_of = Attribute("_queue")  # Who waits within this process, as weak references.
clearing_of = Attribute("_clearing")
looked_ns_of = Attribute("_look_ns")  # When it last looked whether its descriptor is still its own.
busy_of = Attribute("_busy")  # Of a token or a view.
owner_of = Attribute("_owner")  # Of a token or a view.
clear = Method("_clear")
turn_page = Method("_turn")  # Of what records: the page after one that is full.


class _Flock:
    """The system call, as a lock and what it has between processes do it."""

    def __call__(self, lock: Any) -> Any:
        return lock._flock

    def set(self, lock: Any, flock: Any) -> None:
        lock._flock = process_lock_of(lock).flock = flock


flock_of = _Flock()

# --- Of views and blocks ---------------------------------------------------------------------

value_of = Attribute("_value")
view_of = Attribute("_view")
failed_of = Attribute("_failed")
role_of = Attribute("_role")
give_up = Method("_give_up")
