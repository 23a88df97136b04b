/* The compiled core: what is done all the time, each as one call, with no bytecode in between.
 *
 * A method here stands in the place of the Python method of its name, and works on the same objects:
 * it reads and writes their slots. Where anything is rare (taken, closed, absent, another store, a
 * damaged word, several frames, a definition) it calls the Python method that stood there, or goes on
 * with the Python function that comes next. So Python has all of it, and this has what is common.
 * What happens in memory, and in which order, is told in `_store.format` and `_store.region`.
 *
 * Two rules. The memory of a region is asked for (`map_of`) after whatever can run Python code, an
 * allocation too, and used before the next such thing: another thread may close the share meanwhile.
 * And all that can fail comes before the first store of a commit.
 *
 * The parts: 1 words and fences; 2 Python's side; 3 tokens and the lock; 4 objects and bytes; 5 one
 * value; 6 `Share`; 7 blocks; 8 many values; 9 `SharedDict`; 10 the module. */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>

#if !defined(__linux__) || defined(PYPY_VERSION) || defined(Py_GIL_DISABLED) || __SIZEOF_POINTER__ != 8 \
    || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Pure Python is what runs here: this is for CPython with the GIL, on 64-bit Linux, little-endian."
#endif

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <structmember.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef PLANTED /* A bug that the proof plants, by -DPLANTED=N, to see that it is found. */
#define PLANTED 0
#endif

/* --- 1. Words and fences: `_store.format` ---------------------------------------------------- */

typedef _Atomic uint64_t Word;

enum { FORMAT = 1, KIND = 6, VERSION = 8, OLDEST_READABLE = 9, FLAGS = 14, HOLDS = 15, HOLDER = 16, SINCE = 17, LEASE = 20, BLOCKED = 24, ALLOCATED = 26,
       SLOTS_AT = 256, SLOT_BYTES = 64, HEADER_BYTES = 4096, RECORD_BYTES = 40,
       FILE_FORMAT = 2, PLAIN_BASE = 6 };
#define ONE_KEY ((uint64_t)1 << 63)
#define WINDOW_LEAST (64 << 10)
#define CACHED_BYTES (64 << 10)
#define SPARE_BYTES (64 << 10)
#define KEY_MOST 4096
#define RECORDS_MOST 20000 /* They take some milliseconds, in which no signal is handled. */
#define PATIENCE_NS 2000000u
#define LEASE_MOST_NS 2000000000u
#define SPIN_NS 150000
#ifdef __x86_64__
#define COPIED_BYTES CACHED_BYTES /* Python copies what is larger, without a lock as well. */
#else
#define COPIED_BYTES ((4 << 20) - 1) /* Without ordered stores Python would take the lock. */
#endif

typedef struct { uint8_t *at; Word *words; uint64_t bytes; } Map;
typedef struct { uint64_t version, start, end, epoch, parts, check; } Slot;

static inline uint64_t word(const Map *m, int i) {
    return atomic_load_explicit(m->words + i, memory_order_relaxed);
}
static inline void put_word(const Map *m, int i, uint64_t value) {
    atomic_store_explicit(m->words + i, value, memory_order_relaxed);
}
/* What was stored before this version is seen by who sees it. */
static inline uint64_t version_of(const Map *m) {
    return atomic_load_explicit(m->words + VERSION, memory_order_acquire);
}
/* The commit: whoever sees the version sees all that was stored before. */
static inline void commit_version(const Map *m, uint64_t version) {
#if PLANTED == 1
    atomic_store_explicit((_Atomic uint8_t *)(m->words + VERSION), (uint8_t)version, memory_order_release);
#endif
    atomic_store_explicit(m->words + VERSION, version, memory_order_release);
}
/* Before a copy is trusted: its loads come before the load of the word that allows it. */
static inline void after_copy(void) { atomic_thread_fence(memory_order_acquire); }
/* Before a slot or an area is used again: the stores that said so come first. */
static inline void before_reuse(void) { atomic_thread_fence(memory_order_release); }
/* Before it is asked who sleeps: the commit comes first. Of a call only an x86 makes so much. */
static inline void after_release(void) {
#ifndef __x86_64__
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

static inline void pause_cpu(void) {
#ifdef __x86_64__
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static uint64_t area_bytes(const Map *m) { return (m->bytes - HEADER_BYTES) / 2; }
static uint64_t area_start(const Map *m, uint64_t offset) {
    return HEADER_BYTES + (offset >= HEADER_BYTES + area_bytes(m) ? area_bytes(m) : 0);
}
static uint64_t check_of(const Slot *s) {
    return 3 * s->version + 5 * s->start + 7 * s->end + 11 * s->epoch + 13 * s->parts;
}
static Word *slot_at(const Map *m, uint64_t version) {
    return m->words + (SLOTS_AT + SLOT_BYTES * (version & 1)) / 8;
}
/* `Region.load_slot`: 0 where there is more to it: damage, or a writer was faster. */
static int load_slot(const Map *m, uint64_t version, Slot *slot) {
    uint64_t *to = (uint64_t *)slot;
    for (int i = 0; i < 6; i++) to[i] = atomic_load_explicit(slot_at(m, version) + i, memory_order_relaxed);
    after_copy();
    uint64_t first = area_start(m, slot->start);
    return word(m, VERSION) == version && slot->version == version && slot->check == check_of(slot)
        && first <= slot->start && slot->start <= slot->end && slot->end <= first + area_bytes(m);
}
static uint32_t crc_table[8][256];
static void make_crc_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
        crc_table[0][i] = c;
    }
    for (int t = 1; t < 8; t++)
        for (int i = 0; i < 256; i++) crc_table[t][i] = (crc_table[t - 1][i] >> 8) ^ crc_table[0][crc_table[t - 1][i] & 255];
}
static uint32_t crc32_of(const uint8_t *p, size_t n, uint64_t before) { /* As zlib's. */
    uint32_t c = ~(uint32_t)before;
    for (; n >= 8; n -= 8, p += 8) {
        uint32_t a, b;
        memcpy(&a, p, 4), memcpy(&b, p + 4, 4);
        a ^= c;
        c = crc_table[7][a & 255] ^ crc_table[6][a >> 8 & 255] ^ crc_table[5][a >> 16 & 255] ^ crc_table[4][a >> 24]
          ^ crc_table[3][b & 255] ^ crc_table[2][b >> 8 & 255] ^ crc_table[1][b >> 16 & 255] ^ crc_table[0][b >> 24];
    }
    while (n--) c = (c >> 8) ^ crc_table[0][(c ^ *p++) & 255];
    return ~c;
}

/* `Region.publish`, for one part; in a file that is not durable `FileRegion.publish`: there the slot
 * has a check of the content too, which of a log goes on from that of the record before. */
static void publish(const Map *m, uint64_t version, uint64_t start, uint64_t end, uint64_t epoch, uint64_t parts) {
    uint64_t slot[8] = {version, start, end, epoch, parts, check_of(&(Slot){version, start, end, epoch, parts, 0})};
    int words = 6;
    if (word(m, FORMAT) == FILE_FORMAT) {
        Word *other = slot_at(m, version + 1);
        uint64_t from = word(m, KIND) ? atomic_load_explicit(other + 2, memory_order_relaxed) : start;
        uint64_t before = word(m, KIND) ? atomic_load_explicit(other + 6, memory_order_relaxed) : 0;
        if (from > start || from < area_start(m, start)) from = start, before = 0;
        slot[6] = crc32_of(m->at + from, end - from, before);
        slot[7] = crc32_of((uint8_t *)slot, 56, 0);
        words = 8;
    }
#if PLANTED == 2
    commit_version(m, version);
#endif
    for (int i = 0; i < words; i++) atomic_store_explicit(slot_at(m, version) + i, slot[i], memory_order_relaxed);
    commit_version(m, version);
}

/* --- 2. Python's side: classes, functions, and where the slots of the classes are ------------ */

#define CLASSES(X) X(Lock) X(LockToken) X(MemoryKeyedStore) X(MemoryValueStore) X(ObjectView) \
    X(Queue) X(Region) X(Share) X(Shared) X(SharedDict) X(State) X(Transaction) X(View) \
    X(MappingView) X(WriteSet) X(HandleError) X(UnloadableError) \
    X(UnpicklableError) X(UnknownDefinitionError) X(HasBuffersError)
#define THINGS(X) X(abandoned) X(acquire) X(attend) X(buffered) X(by_address) X(codec) X(current_owner) X(dumps) X(encode) X(encode_by_value) \
    X(flock) X(give_up_or_go_on) X(has_buffers) X(here) X(is_enough) X(load_snapshot) X(loads) \
    X(modules) X(named) X(native_local) X(none) X(recover) X(release) X(take_named) X(taken_by_value)
#define METHODS_OF_PYTHON(X) X(share_get) X(share_set) X(locked) X(enter) X(exit) X(dict_get) X(dict_set) X(dict_missing)
static struct {
#define X(name) PyTypeObject *name;
    CLASSES(X)
#undef X
} class;
static struct {
#define X(name) PyObject *name;
    THINGS(X) METHODS_OF_PYTHON(X)
#undef X
} py;
static const struct { const char *name; PyObject **to; } handed_in[] = {
#define X(name) {#name, (PyObject **)&class.name},
    CLASSES(X)
#undef X
#define X(name) {#name, &py.name},
    THINGS(X) METHODS_OF_PYTHON(X)
#undef X
    {NULL, NULL}};

#define ALL_SLOTS(X) X(Shared, _store) X(Shared, _timeout) X(Share, _view_class) X(LockToken, _owner) \
    X(LockToken, _inner) X(LockToken, _busy) X(View, _base) X(View, _failed) X(View, _guard) X(View, _lock) \
    X(View, _named) X(View, _share) X(View, _value) X(Transaction, _share) X(Transaction, _timeout) \
    X(Transaction, _role) X(Transaction, _view) X(Lock, _fd) X(Lock, _flock) X(Lock, _look_ns) X(Lock, _queue) \
    X(Lock, _version_offset) X(Lock, pid) X(Lock, thread_lock) X(Lock, words) X(MemoryStore, _words) \
    X(MemoryStore, kept) X(MemoryStore, lock) X(MemoryStore, region) X(Region, identity) X(MemoryValueStore, _commit) \
    X(MemoryValueStore, _easy_most) X(MemoryKeyedStore, _busy) \
    X(MemoryKeyedStore, _codec) X(MemoryKeyedStore, log) X(MemoryKeyedStore, state) X(State, changing) X(State, dead) X(State, definitions) X(State, live) X(State, most) \
    X(State, places) X(State, position) X(State, version) X(WriteSet, base) X(WriteSet, ends) X(WriteSet, gone) \
    X(WriteSet, read) X(WriteSet, state) X(WriteSet, store)
enum {
#define X(of, name) of##_##name,
    ALL_SLOTS(X)
#undef X
    SLOTS_END };
static Py_ssize_t offsets[SLOTS_END];
static const struct { const char *of, *name; } slot_names[] = {
#define X(of, name) {#of, #name},
    ALL_SLOTS(X)
#undef X
};
/* A slot of an object; the object's class has been looked at. NULL while it was never set. */
#define SLOT(object, slot) (*(PyObject **)((char *)(object) + offsets[slot]))
#define SET(object, slot, value) Py_XSETREF(SLOT(object, slot), value)

#define NAMES(X) X(__class__) X(_changes) X(_check) X(_drop) X(_dumps) X(_is_same) X(_is_unchanged) X(_give_up) \
    X(_open) X(_put) X(_refused) X(_set_in_block) X(_trust) X(_view_class) X(abandon) \
    X(believes) X(check_held) X(commit) X(current) X(holds) X(keep) X(owner)
static struct {
#define X(name) PyObject *name;
    NAMES(X)
#undef X
} str;
static PyObject *zero, *five, *dumps_names, *asyncio_tasks, *greenlets, *trio, *torch, *no_arguments;
static PyObject *in_core; /* What a token is busy with. Taken away on every way out, unlike True. */

static int done(PyObject *result) { Py_XDECREF(result); return result ? 0 : -1; }
#define CALL0(of, name) PyObject_CallMethodNoArgs((PyObject *)(of), str.name)
#define CALL1(of, name, one) PyObject_CallMethodOneArg((PyObject *)(of), str.name, one)
#define CALL2(of, name, one, two) PyObject_CallMethodObjArgs((PyObject *)(of), str.name, one, two, NULL)

#if PY_VERSION_HEX < 0x030C0000
static PyObject *take_raised(void) {
    PyObject *type, *err, *trace;
    PyErr_Fetch(&type, &err, &trace);
    PyErr_NormalizeException(&type, &err, &trace);
    if (trace) PyException_SetTraceback(err, trace);
    Py_XDECREF(type); Py_XDECREF(trace);
    return err;
}
static void raise_again(PyObject *err) { PyErr_Restore(Py_NewRef(Py_TYPE(err)), err, PyException_GetTraceback(err)); }
#else
#define take_raised PyErr_GetRaisedException
#define raise_again PyErr_SetRaisedException
#endif
/* Whether an exception is one that `except Exception` takes. */
static int is_ordinary(void) { return PyErr_ExceptionMatches(PyExc_Exception); }

/* The memory of a store or of a lock; 0 where it is closed, or something stands in its place. */
static int map_of(PyObject *words, Map *m) {
    if (!words || !PyMemoryView_Check(words)) return 0;
    PyMemoryViewObject *view = (PyMemoryViewObject *)words;
    if (view->flags & _Py_MEMORYVIEW_RELEASED || view->mbuf->flags & _Py_MANAGED_BUFFER_RELEASED) return 0;
    m->at = view->mbuf->master.buf;
    m->words = (Word *)m->at;
    m->bytes = (uint64_t)view->mbuf->master.len;
    return (uint8_t *)view->view.buf == m->at && m->bytes > HEADER_BYTES;
}
static int map_of_store(PyObject *store, Map *m) { return map_of(SLOT(store, MemoryStore__words), m); }
/* Whether a commit to it is what `publish` does: in a file none that waits for the disk. */
static int is_quick(PyObject *store, const Map *m) {
    PyTypeObject *kind = Py_TYPE(SLOT(store, MemoryStore_region));
    if (kind == class.Region) return word(m, FORMAT) != FILE_FORMAT;
    return word(m, FORMAT) == FILE_FORMAT && kind->tp_base == class.Region && !strcmp(kind->tp_name, "FileRegion") && !word(m, FLAGS);
}
/* A number of a slot; -1 for what is none that we know. */
static int64_t number(PyObject *n) {
    if (!n || !PyLong_CheckExact(n)) return -1;
#if PY_VERSION_HEX < 0x030C0000
    if (Py_SIZE(n) == 1) return ((PyLongObject *)n)->ob_digit[0];
#else
    if (PyUnstable_Long_IsCompact((PyLongObject *)n)) return PyUnstable_Long_CompactValue((PyLongObject *)n);
#endif
    int over;
    int64_t found = PyLong_AsLongLongAndOverflow(n, &over);
    return over ? -1 : found;
}
static PyObject *numbers(const uint64_t *all, int count) {
    PyObject *found = PyTuple_New(count);
    for (int i = 0; found && i < count; i++) {
        PyObject *one = PyLong_FromUnsignedLongLong(all[i]);
        if (one) PyTuple_SET_ITEM(found, i, one); else Py_CLEAR(found);
    }
    return found;
}
static int is_stored(const Map *m, int64_t begin, int64_t end) {
    return begin >= HEADER_BYTES && begin <= end && (uint64_t)end <= m->bytes;
}

/* --- 3. Tokens and the lock: `_lock.owner`, `_lock.lock` ------------------------------------- */

static PyObject *thread_owner;
static uint64_t its_thread;
static int is_native_local; /* gevent's own `threading.local` is one for each greenlet. */

/* `here.owner`, borrowed. A thread's id does not come again. */
static PyObject *here(void) {
    uint64_t thread = PyThreadState_GetID(PyThreadState_Get());
    if (thread == its_thread && thread_owner && is_native_local) return thread_owner;
    PyObject *owner = PyObject_GetAttr(py.here, str.owner);
    if (!owner) return NULL;
    Py_XSETREF(thread_owner, owner);
    its_thread = thread;
    return owner;
}
/* `current_owner`, a new reference. */
static PyObject *current_owner(void) {
#if PY_VERSION_HEX < 0x030C0000 /* Later ones say no more whether a dict has changed. */
    static uint64_t without;
    if (((PyDictObject *)py.modules)->ma_version_tag == without) return Py_XNewRef(here());
#endif
    if (PyDict_GetItemWithError(py.modules, asyncio_tasks) || PyDict_GetItemWithError(py.modules, greenlets)
        || PyDict_GetItemWithError(py.modules, trio))
        return PyObject_CallNoArgs(py.current_owner);
#if PY_VERSION_HEX < 0x030C0000
    without = ((PyDictObject *)py.modules)->ma_version_tag;
#endif
    return Py_XNewRef(here());
}
/* Frees what has nothing but slots, without the many questions that `subtype_dealloc` asks. */
static void free_slots(PyObject *object) {
    PyTypeObject *kind = Py_TYPE(object);
    if (kind->tp_finalize && PyObject_CallFinalizerFromDealloc(object)) return;
    PyObject_GC_UnTrack(object);
    Py_TRASHCAN_BEGIN(object, free_slots) /* A view may hold a view, and so on. */
    if (kind->tp_weaklistoffset && *(PyObject **)((char *)object + kind->tp_weaklistoffset)) PyObject_ClearWeakRefs(object);
    for (PyObject **slot = (PyObject **)(object + 1); (char *)slot < (char *)object + kind->tp_basicsize; slot++) Py_CLEAR(*slot);
    kind->tp_free(object);
    Py_DECREF(kind);
    Py_TRASHCAN_END
}
/* A new token of this kind, of the caller, busy; without a tracked field that is not set. */
static PyObject *new_token(PyTypeObject *kind) {
    PyObject *token = kind->tp_alloc(kind, 0), *owner = token ? current_owner() : NULL;
    if (!owner) {
        Py_XDECREF(token);
        return NULL;
    }
    SLOT(token, LockToken__owner) = owner;
    SLOT(token, LockToken__busy) = Py_NewRef(in_core);
    return token;
}
static void is_over(PyObject *token) {
    SET(token, LockToken__busy, Py_NewRef(Py_False));
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static int flock_now(int fd, int operation) {
    int failed;
    while ((failed = flock(fd, operation)) && errno == EINTR) ;
    return failed;
}
/* Takes the process lock, if it is free within as long as some blocks take: who sleeps wakes up late.
 * Where there is but one processor, its holder cannot go on meanwhile. */
static uint64_t spin_ns;
static int is_free_soon(int fd, const Map *m, int64_t pid, uint64_t *now) {
    for (uint64_t until = *now + spin_ns; flock_now(fd, LOCK_EX | LOCK_NB);) {
        if (errno != EWOULDBLOCK || (int64_t)word(m, HOLDER) == pid) return 0; /* Another handle's. */
        do {
            if ((*now = now_ns()) > until) return 0;
            pause_cpu();
        } while (word(m, HOLDER));
    }
    return 1;
}
/* `Lock.acquire` of a lock that is free, as its last holder left it. 1: taken. 0: `Lock.acquire` has
 * to go on from what stands now. */
static int take_at_once(PyObject *store, PyObject *lock, PyObject *token) {
    PyObject *queue = SLOT(lock, Lock__queue), *gate = SLOT(lock, Lock_thread_lock);
    if (!queue || Py_TYPE(queue) != class.Queue || !PyDict_CheckExact(gate) || PyObject_Size(queue) || SLOT(lock, Lock__flock) != py.flock) return 0;
    PyObject *held = PyDict_SetDefault(gate, zero, token);
    if (held != token) return held ? 0 : -1;
    uint64_t now = now_ns();
    int64_t pid = number(SLOT(lock, Lock_pid));
    Map m;
    if ((int64_t)now > number(SLOT(lock, Lock__look_ns)) || !map_of_store(store, &m)
        || !is_free_soon((int)number(SLOT(lock, Lock__fd)), &m, pid, &now) || word(&m, HOLDER)) return 0;
    put_word(&m, SINCE, now);
    put_word(&m, HOLDER, (uint64_t)pid);
    return 1;
}
/* `Lock.acquire`: 0 where the token's own owner has it. */
static int take(PyObject *store, PyObject *lock, PyObject *token, PyObject *timeout) {
    int taken = take_at_once(store, lock, token);
    if (taken) return taken;
    PyObject *found = PyObject_CallFunctionObjArgs(py.acquire, lock, token, timeout, NULL);
    taken = found ? found == Py_True : -1;
    Py_XDECREF(found);
    return taken;
}
/* `attend`: 0 where somebody has been blocked for long, or a lease is over. */
static int has_attended(const Map *m) {
    uint64_t lease = word(m, LEASE), blocked = word(m, BLOCKED), now;
    if (!lease) return 1;
    now = now_ns();
    if (blocked && (now < blocked || now - blocked > PATIENCE_NS)) return 0;
    if (lease <= now || lease > now + LEASE_MOST_NS) return blocked && lease == 1; /* Asked for. */
    syscall(SYS_futex, m->words + VERSION, 1 /* FUTEX_WAKE */, INT_MAX, NULL, NULL, 0);
    return 1;
}
/* `Lock.release`. */
static int release(PyObject *store, PyObject *lock) {
    PyObject *queue = SLOT(lock, Lock__queue);
    Map m;
    if (SLOT(lock, Lock__flock) != py.flock || PyObject_Size(queue) || !map_of_store(store, &m)) return done(PyObject_CallOneArg(py.release, lock));
    put_word(&m, HOLDER, 0); /* Before the lock is free: a holder found later is one that died. */
    if (flock_now((int)number(SLOT(lock, Lock__fd)), LOCK_UN)) return done(PyObject_CallOneArg(py.release, lock));
    if (PyDict_DelItem(SLOT(lock, Lock_thread_lock), zero)) return -1;
    after_release();
    if (map_of_store(store, &m) && has_attended(&m)) return 0;
    PyObject *args[] = {SLOT(lock, Lock_words), SLOT(lock, Lock__version_offset)};
    return done(PyObject_Vectorcall(py.attend, args, 2, NULL));
}
/* Calls what undoes all, with an exception on the way, which goes on; another one takes it along. */
static void undo(PyObject *of, PyObject *name, PyObject *token) {
    PyObject *err = take_raised();
    if (done(name == str.abandon ? PyObject_CallMethodOneArg(of, name, token) : PyObject_CallMethodNoArgs(of, name))) {
        PyObject *later = take_raised();
        if (err && later != err) PyException_SetContext(later, err); else Py_XDECREF(err);
        err = later;
    }
    is_over(token);
    if (err) raise_again(err);
}

/* --- 4. Objects and bytes: `_codec.frames` --------------------------------------------------- */

static _Thread_local int storing; /* How many of this thread's encodings are under way: see `_codec.references`. */

/* Calls with the exception that is on its way as the last argument. */
static PyObject *with_raised(PyObject *function, PyObject *first, PyObject *last) {
    PyObject *err = take_raised();
    PyObject *found = PyObject_CallFunctionObjArgs(function, first, err, last, NULL);
    Py_DECREF(err);
    return found;
}
/* `encode`: a tuple of frames, a new reference. ``apart`` may be None. */
static PyObject *encode(PyObject *value, PyObject *apart) {
    PyObject *frames, *args[] = {value, five, py.has_buffers};
    if (PyDict_GET_SIZE(py.by_address) || PyDict_GET_SIZE(py.buffered)) {
        PyObject *id = PyLong_FromVoidPtr(Py_TYPE(value));
        int known = id ? PyDict_Contains(py.by_address, id) : -1;
        if (!known) known = PyDict_Contains(py.buffered, id);
        Py_XDECREF(id);
        if (known) return known < 0 ? NULL : PyObject_CallFunctionObjArgs(py.encode, value, apart, NULL);
    }
    PyObject *dumps = PyDict_GetItemWithError(py.codec, str._dumps);
    if (!dumps) return PyObject_CallFunctionObjArgs(py.encode, value, apart, NULL);
    storing++;
    PyObject *stream = PyObject_Vectorcall(dumps, args, 2, dumps_names);
    storing--;
    if (!stream) {
        if (!is_ordinary()) return NULL;
        if (PyErr_ExceptionMatches((PyObject *)class.HasBuffersError)) {
            PyErr_Clear();
            return PyObject_CallFunctionObjArgs(py.encode, value, apart, NULL);
        }
        if (done(with_raised(py.give_up_or_go_on, value, NULL))) return NULL;
        return PyObject_CallFunctionObjArgs(py.encode_by_value, value, apart, NULL);
    }
    if (!PyBytes_CheckExact(stream)) { /* torch's. */
        Py_DECREF(stream);
        return PyObject_CallFunctionObjArgs(py.encode, value, apart, NULL);
    }
    const char *bytes = PyBytes_AS_STRING(stream);
    size_t size = (size_t)PyBytes_GET_SIZE(stream);
    if (memchr(bytes, 0x93, size)) { /* Classes or functions. */
        int is_enough = PySet_GET_SIZE(py.taken_by_value) == 0 && !memmem(bytes, size, "_main__", 7)
            && !PyDict_GetItemWithError(py.modules, torch);
        if (!is_enough) {
            PyObject *found = PyObject_CallOneArg(py.is_enough, stream);
            is_enough = found ? PyObject_IsTrue(found) : -1;
            Py_XDECREF(found);
        }
        if (is_enough <= 0) {
            Py_DECREF(stream);
            return is_enough ? NULL : PyObject_CallFunctionObjArgs(py.encode_by_value, value, apart, NULL);
        }
    }
    if (!(frames = PyTuple_New(1))) Py_DECREF(stream);
    else PyTuple_SET_ITEM(frames, 0, stream);
    return frames;
}
/* The one frame of these; NULL where there are several, or it is no bytes. */
static PyObject *one_frame(PyObject *frames) {
    if (!PyTuple_CheckExact(frames) || PyTuple_GET_SIZE(frames) != 1) return NULL;
    PyObject *frame = PyTuple_GET_ITEM(frames, 0);
    return PyBytes_CheckExact(frame) ? frame : NULL;
}
/* `decode` of one frame. */
static PyObject *decode_one(PyObject *frames, PyObject *definitions) {
    PyObject *value = PyObject_CallOneArg(py.loads, PyTuple_GET_ITEM(frames, 0));
    if (value || !is_ordinary()) return value;
    return with_raised(py.recover, frames, definitions);
}
/* `is_plain`: neither classes nor sets, so that other bytes mean another value. */
static int is_plain(const void *bytes, size_t size) {
    return !memchr(bytes, 0x93, size) && !memchr(bytes, 0x8F, size) && !memchr(bytes, 0x91, size);
}
static int same_bytes(PyObject *a, PyObject *b) {
    return PyBytes_GET_SIZE(a) == PyBytes_GET_SIZE(b)
        && !memcmp(PyBytes_AS_STRING(a), PyBytes_AS_STRING(b), (size_t)PyBytes_GET_SIZE(a));
}

/* --- 5. One value: `_store.value` ------------------------------------------------------------ */

static PyObject *new_commit(uint64_t version, PyObject *frames, uint64_t start, uint64_t end, PyObject *epoch, PyObject *easy) {
    PyObject *commit = PyTuple_New(6);
    if (!commit) return NULL;
    PyTuple_SET_ITEM(commit, 0, PyLong_FromUnsignedLongLong(version));
    PyTuple_SET_ITEM(commit, 1, Py_NewRef(frames));
    PyTuple_SET_ITEM(commit, 2, PyLong_FromUnsignedLongLong(start));
    PyTuple_SET_ITEM(commit, 3, PyLong_FromUnsignedLongLong(end));
    PyTuple_SET_ITEM(commit, 4, Py_NewRef(epoch));
    PyTuple_SET_ITEM(commit, 5, Py_NewRef(easy));
    for (int i = 0; i < 6; i++)
        if (!PyTuple_GET_ITEM(commit, i)) { Py_DECREF(commit); return NULL; }
    return commit;
}
/* The last commit that was seen, if that is the newest; borrowed. */
static PyObject *cached(PyObject *store, const Map *m) {
    PyObject *commit = SLOT(store, MemoryValueStore__commit);
    if (!PyTuple_CheckExact(commit) || PyTuple_GET_SIZE(commit) != 6) return NULL;
    return number(PyTuple_GET_ITEM(commit, 0)) == (int64_t)version_of(m) ? commit : NULL;
}
/* `MemoryValueStore._easy` */
static uint64_t easy_of(PyObject *store, const Map *m, uint64_t start, uint64_t end) {
    if (word(m, HOLDS)) return 0;
    uint64_t window = 16 * (end - start), most = (uint64_t)number(SLOT(store, MemoryValueStore__easy_most));
    uint64_t first = area_start(m, start), has = word(m, ALLOCATED + (first != HEADER_BYTES));
    if (window < WINDOW_LEAST) window = WINDOW_LEAST;
    if (window > most) window = most;
    if (has > first + area_bytes(m)) has = first + area_bytes(m);
    return first + window < has ? first + window : has;
}
/* `try_read` of one small frame. NULL without an exception where there is more to it. */
static PyObject *catch_up(PyObject *store, const Map *found) {
    Map m = *found;
    uint64_t version = version_of(&m);
    Slot slot;
    if (!version || !load_slot(&m, version, &slot) || slot.parts != 1 || slot.end - slot.start > COPIED_BYTES) return NULL;
    PyObject *frame = PyBytes_FromStringAndSize((char *)m.at + slot.start, (Py_ssize_t)(slot.end - slot.start));
    if (!frame) return NULL;
    after_copy();
#if PLANTED != 3
    if (word(&m, OLDEST_READABLE) > version) {
        Py_DECREF(frame);
        return NULL;
    }
#endif
    PyObject *epoch = PyLong_FromUnsignedLongLong(slot.epoch);
    PyObject *easy = PyLong_FromUnsignedLongLong(easy_of(store, &m, slot.start, slot.end));
    PyObject *frames = epoch && easy ? PyTuple_Pack(1, frame) : NULL;
    PyObject *commit = frames ? new_commit(version, frames, slot.start, slot.end, epoch, easy) : NULL;
    Py_DECREF(frame);
    Py_XDECREF(frames); Py_XDECREF(epoch); Py_XDECREF(easy);
    if (commit && slot.end - slot.start <= CACHED_BYTES) SET(store, MemoryValueStore__commit, Py_NewRef(commit));
    return commit;
}
/* `current`, for the holder: a new reference. */
static PyObject *newest_commit(PyObject *store) {
    Map m;
    if (map_of_store(store, &m)) {
        PyObject *commit = cached(store, &m);
        if (commit) return Py_NewRef(commit);
        if (!word(&m, HOLDS) && ((commit = catch_up(store, &m)) || PyErr_Occurred())) return commit;
    }
    return CALL0(store, current);
}
/* `commit`: the version, a new reference. */
static PyObject *commit_value(PyObject *store, PyObject *frames) {
    PyObject *frame = one_frame(frames), *base = Py_NewRef(SLOT(store, MemoryValueStore__commit)), *next = NULL;
    Map m;
    if (frame && PyTuple_GET_SIZE(base) == 6 && number(PyTuple_GET_ITEM(base, 0)) > 0) {
        uint64_t version = (uint64_t)number(PyTuple_GET_ITEM(base, 0)) + 1;
        uint64_t start = ((uint64_t)number(PyTuple_GET_ITEM(base, 3)) + 63) & ~(uint64_t)63;
        uint64_t end = start + (uint64_t)PyBytes_GET_SIZE(frame), epoch = (uint64_t)number(PyTuple_GET_ITEM(base, 4));
        if (end <= (uint64_t)number(PyTuple_GET_ITEM(base, 5))) {
            next = new_commit(version, frames, start, end, PyTuple_GET_ITEM(base, 4), PyTuple_GET_ITEM(base, 5));
            if (!next) goto over;
            if (map_of_store(store, &m) && is_quick(store, &m) && version_of(&m) == version - 1 && is_stored(&m, (int64_t)start, (int64_t)end)) {
                before_reuse();
#if PLANTED == 4
                publish(&m, version, start, end, epoch, 1);
#endif
                memcpy(m.at + start, PyBytes_AS_STRING(frame), (size_t)PyBytes_GET_SIZE(frame) + (PLANTED == 6) * 64);
                publish(&m, version, start, end, epoch, 1);
                PyObject *number_of = Py_NewRef(PyTuple_GET_ITEM(next, 0));
                SET(store, MemoryValueStore__commit, next);
                Py_DECREF(base);
                return number_of;
            }
            Py_CLEAR(next);
        }
    }
    next = CALL1(store, commit, frames);
over:
    Py_DECREF(base);
    return next;
}
/* `keep`, where there is anything to be kept, or was. */
static int keep(PyObject *store, PyObject *changes, PyObject *kept) {
    PyObject *before = SLOT(store, MemoryStore_kept);
    if (kept == Py_None && before == Py_None) return 0;
    int some = PyObject_IsTrue(kept);
    if (!some) some = PyObject_IsTrue(before);
    return some > 0 ? done(CALL2(store, keep, changes, kept)) : some;
}
/* Whether the latest encoding named shares: then Python encodes once more, and keeps them. */
static int is_naming(void) { return PyDict_GET_SIZE(py.named) ? done(PyObject_CallNoArgs(py.take_named)) ? -1 : 1 : 0; }
/* `Store.put` of what has been encoded: None, with nothing done, where the caller is the holder. */
static PyObject *put(PyObject *store, PyObject *changes, PyObject *timeout, PyObject *(*commit)(PyObject *, PyObject *)) {
    PyObject *lock = Py_NewRef(SLOT(store, MemoryStore_lock)), *token = new_token(class.LockToken), *version = NULL;
    if (!token) goto over;
    SLOT(token, LockToken__inner) = Py_NewRef(Py_None);
    int taken = take(store, lock, token, timeout);
    if (!taken) version = Py_NewRef(Py_None);
    else if (taken > 0 && (version = commit(store, changes)) && (keep(store, changes, Py_None) || release(store, lock)))
        Py_CLEAR(version);
    if (!version) undo(lock, str.abandon, token);
    else is_over(token);
over:
    Py_XDECREF(token);
    Py_DECREF(lock);
    return version;
}

/* --- 6. `Share` ------------------------------------------------------------------------------ */

static PyObject *store_of(PyObject *shared, PyTypeObject *kind) {
    PyObject *store = SLOT(shared, Shared__store);
    return store && Py_TYPE(store) == kind && Py_TYPE(SLOT(store, MemoryStore_lock)) == class.Lock ? store : NULL;
}
/* The method of Python's, with the same arguments. */
static PyObject *to_python(PyObject *method, PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    PyObject *all[6] = {self};
    Py_ssize_t more = count + (names ? PyTuple_GET_SIZE(names) : 0);
    if (more > 5) return PyErr_Format(PyExc_TypeError, "these are too many arguments");
    memcpy(all + 1, args, (size_t)more * sizeof *args);
    return PyObject_Vectorcall(method, all, (size_t)count + 1, names);
}
/* `Share.get` */
static PyObject *share_get(PyObject *share, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    if (count || names) return to_python(py.share_get, share, args, count, names);
    PyObject *store = store_of(share, class.MemoryValueStore), *commit = NULL, *value = NULL;
    Map m;
    if (store && map_of_store(store, &m)) {
        commit = Py_XNewRef(cached(store, &m));
        if (!commit && !(commit = catch_up(store, &m)) && PyErr_Occurred()) return NULL;
    }
    if (commit && one_frame(PyTuple_GET_ITEM(commit, 1))) value = decode_one(PyTuple_GET_ITEM(commit, 1), NULL);
    else value = PyObject_CallOneArg(py.share_get, share);
    Py_XDECREF(commit);
    return value;
}
/* `Share.set` */
static PyObject *share_set(PyObject *share, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    PyObject *store = store_of(share, class.MemoryValueStore), *version = NULL;
    if (count == 1 && !names && store) {
        Py_INCREF(store);
        PyObject *frames = encode(args[0], Py_None);
        int naming = frames ? is_naming() : -1;
        if (naming >= 0) version = naming ? Py_NewRef(Py_None) : put(store, frames, SLOT(share, Shared__timeout), commit_value);
        Py_DECREF(store);
        Py_XDECREF(frames);
        if (version != Py_None) return version;
        Py_DECREF(version);
    }
    return to_python(py.share_set, share, args, count, names);
}

/* --- 7. Blocks: `Shared.locked`, `_transaction.block`, `_transaction.view` ------------------- */

/* `Shared.locked` with the share's own timeout. */
static PyObject *locked(PyObject *shared, PyObject *const *args, Py_ssize_t count, PyObject *names) {
    if (count || names) return to_python(py.locked, shared, args, count, names);
    PyObject *block = class.Transaction->tp_alloc(class.Transaction, 0);
    if (!block) return NULL;
    SLOT(block, Transaction__share) = Py_NewRef(shared);
    SLOT(block, Transaction__timeout) = Py_XNewRef(SLOT(shared, Shared__timeout));
    SLOT(block, Transaction__role) = Py_NewRef(zero);
    SLOT(block, Transaction__view) = Py_NewRef(Py_None);
    return block;
}
static int is_container(PyObject *value) {
    PyTypeObject *type = Py_TYPE(value);
    return type == &PyDict_Type || type == &PyList_Type || type == &PySet_Type;
}
/* `View._open`, for who has the lock. */
static int open_value(PyObject *view, PyObject *share, PyObject *store) {
    PyObject *base = newest_commit(store), *frame = base ? one_frame(PyTuple_GET_ITEM(base, 1)) : NULL;
    if (!frame || (Py_TYPE(view) != class.View && Py_TYPE(view) != class.ObjectView)) {
        int failed = base ? done(CALL2(view, _open, share, base)) : -1;
        Py_XDECREF(base);
        return failed;
    }
    SET(view, View__share, Py_NewRef(share));
    SET(view, View__base, base);
    SET(view, View__named, Py_NewRef(Py_None));
    SET(view, View__failed, Py_NewRef(Py_None));
    PyObject *value = decode_one(PyTuple_GET_ITEM(base, 1), NULL);
    if (!value) {
        if (!PyErr_ExceptionMatches((PyObject *)class.UnloadableError) && !PyErr_ExceptionMatches((PyObject *)class.HandleError)) return -1;
        PyErr_Clear(); /* Once more: the view says so when it is used. */
        return done(CALL2(view, _open, share, base));
    }
    SET(view, View__value, value);
    PyTypeObject *fit = is_container(value) ? class.View : class.ObjectView;
    if (Py_TYPE(view) == fit) return 0;
    SET(share, Share__view_class, Py_NewRef((PyObject *)fit));
    return fit == class.View ? 0 : PyObject_SetAttr(view, str.__class__, (PyObject *)fit);
}
/* `View._changes`: 0 where that is what is stored; the frames, a new reference, else. */
static int changes_of_value(PyObject *view, PyObject **frames) {
    PyObject *stored = PyTuple_GET_ITEM(SLOT(view, View__base), 1), *before = one_frame(stored), *after, *found = NULL;
    int naming = 0, changed = 1;
    *frames = NULL;
    if (before && (Py_TYPE(view) == class.View || Py_TYPE(view) == class.ObjectView)) {
        if (!(found = encode(SLOT(view, View__value), Py_None)) || (naming = is_naming()) < 0) goto over;
    }
    if (!found || naming) { /* Nothing was there yet; arrays; it names shares. */
        Py_XSETREF(found, CALL0(view, _changes));
        changed = found ? found != Py_None : -1;
    } else if ((after = one_frame(found)) && same_bytes(before, after)) changed = 0;
    else if (!is_plain(PyBytes_AS_STRING(before), (size_t)PyBytes_GET_SIZE(before)) && (after || !same_bytes(before, PyTuple_GET_ITEM(found, 0)))) {
        PyObject *trust = PyObject_GetAttr(SLOT(view, View__share), str._trust);
        PyObject *believed = trust ? CALL2(trust, believes, before, PyTuple_GET_ITEM(found, 0)) : NULL;
        changed = believed ? PyObject_IsTrue(believed) : -1;
        Py_XDECREF(trust);
        Py_XDECREF(believed);
        if (!changed) {
            PyObject *same = CALL2(view, _is_unchanged, found, stored);
            changed = same ? !PyObject_IsTrue(same) : -1;
            Py_XDECREF(same);
        }
    }
    if (changed > 0) *frames = Py_NewRef(found);
over:
    if (!found || naming < 0) changed = -1;
    Py_XDECREF(found);
    return changed;
}
static int catch_up_early(PyObject *store);
static int open_keys(PyObject *view, PyObject *share, PyObject *store);
static int changes_of_keys(PyObject *view, PyObject **changes);
static PyObject *commit_keys(PyObject *store, PyObject *changes);

/* A transaction's finalizer: what `View._guard` does for those that Python has entered. */
static void gone(PyObject *block) {
    PyObject *view = SLOT(block, Transaction__view);
    if (!view || view == Py_None || SLOT(view, View__guard) != in_core || SLOT(view, LockToken__owner) == Py_None
        || SLOT(block, Transaction__role) != zero) return;
    PyObject *err = PyErr_Occurred() ? take_raised() : NULL;
    if (done(PyObject_CallFunctionObjArgs(py.abandoned, view, Py_None, NULL))) PyErr_WriteUnraisable(view);
    if (err) raise_again(err);
}
/* `Transaction.__enter__` */
static PyObject *enter(PyObject *block, PyObject *unused) {
    PyObject *share = SLOT(block, Transaction__share), *store = NULL;
    PyTypeObject *kind = NULL;
    if (share && SLOT(block, Transaction__view) == Py_None && PyObject_TypeCheck(share, class.Shared)) {
        if ((store = store_of(share, class.MemoryValueStore)) && PyObject_TypeCheck(share, class.Share))
            kind = (PyTypeObject *)SLOT(share, Share__view_class);
        else if ((store = store_of(share, class.MemoryKeyedStore)) && Py_TYPE(share) == class.SharedDict) kind = class.MappingView;
    }
    if (!kind || !PyType_Check(kind) || !PyType_IsSubtype(kind, class.View)) return PyObject_CallOneArg(py.enter, block);
    Py_INCREF(store); /* In an allocation of ours somebody may close the share. */
    PyObject *lock = Py_NewRef(SLOT(store, MemoryStore_lock)), *view = new_token(kind), *found = NULL;
    if (!view) goto over;
    SLOT(view, View__lock) = Py_NewRef(lock);
    SLOT(view, View__guard) = Py_NewRef(in_core);
    SET(block, Transaction__view, Py_NewRef(view));
    int taken = kind == class.MappingView ? catch_up_early(store) : 0;
    if (!taken) taken = take(store, lock, view, SLOT(block, Transaction__timeout));
    if (!taken) { /* The caller has it already. */
        SET(block, Transaction__view, Py_NewRef(Py_None));
        SET(view, View__guard, Py_NewRef(Py_None));
        found = PyObject_CallOneArg(py.enter, block);
        goto over;
    }
    if (taken > 0) taken = Py_TYPE(store) == class.MemoryValueStore ? open_value(view, share, store) : open_keys(view, share, store);
    if (taken < 0) undo(block, str._give_up, view);
    else {
        is_over(view);
        found = Py_NewRef(view);
    }
over:
    Py_XDECREF(view);
    Py_DECREF(store);
    Py_DECREF(lock);
    return found;
}
/* `Transaction.__exit__` */
static PyObject *leave(PyObject *block, PyObject *const *args, Py_ssize_t count) {
    PyObject *view = SLOT(block, Transaction__view), *share = SLOT(block, Transaction__share), *store = NULL, *owner = here(), *changes = NULL;
    if (!owner) return NULL;
    if (count == 3 && view && view != Py_None && SLOT(view, LockToken__owner) == owner && SLOT(view, View__failed) == Py_None
        && SLOT(block, Transaction__role) == zero && PyObject_TypeCheck(share, class.Shared)) {
        if (!(store = store_of(share, class.MemoryValueStore))) store = store_of(share, class.MemoryKeyedStore);
    }
    PyObject *lock = view && store ? SLOT(view, View__lock) : NULL;
    if (!lock || SLOT(store, MemoryStore_lock) != lock) {
        PyObject *all[] = {block, count > 0 ? args[0] : Py_None, count > 1 ? args[1] : Py_None, count > 2 ? args[2] : Py_None};
        return PyObject_Vectorcall(py.exit, all, 4, NULL);
    }
    Py_INCREF(view); Py_INCREF(store); Py_INCREF(lock);
    SET(view, LockToken__busy, Py_NewRef(in_core));
    int is_value = Py_TYPE(store) == class.MemoryValueStore, failed = 0;
    if (args[0] == Py_None) {
        int changed = is_value ? changes_of_value(view, &changes) : changes_of_keys(view, &changes);
        failed = changed < 0;
        if (changed > 0) {
            Map m; /* Another was in, or the word is damaged. */
            if (!map_of_store(store, &m) || (int64_t)word(&m, HOLDER) != number(SLOT(lock, Lock_pid))) failed = done(CALL0(lock, check_held));
            failed = failed || done(is_value ? commit_value(store, changes) : commit_keys(store, changes));
        }
        failed = failed || keep(store, changes ? changes : Py_None, SLOT(view, View__named));
        Py_XDECREF(changes);
    }
    if (failed || release(store, lock)) undo(block, str._give_up, view);
    else {
        is_over(view);
        SET(view, LockToken__owner, Py_NewRef(Py_None));
        SET(view, View__guard, Py_NewRef(Py_None));
        if (Py_SIZE(SLOT(view, View__base)) > PLAIN_BASE) done(CALL0(view, _drop));
    }
    Py_DECREF(lock); Py_DECREF(store); Py_DECREF(view);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}
/* Let nobody but the owner pass: what `View.__getitem__` and the like do first. */
static int check(PyObject *view) {
    PyObject *owner = here();
    if (!owner) return -1;
    return SLOT(view, LockToken__owner) == owner ? 0 : done(CALL0(view, _check));
}
static PyObject *view_get(PyObject *view, PyObject *key) {
    if (check(view)) return NULL;
    PyObject *value = Py_NewRef(SLOT(view, View__value)), *item = PyObject_GetItem(value, key);
    Py_DECREF(value);
    return item;
}
static PyObject *view_put(PyObject *view, PyObject *const *args, Py_ssize_t count) {
    if (count != 2) return PyErr_Format(PyExc_TypeError, "__setitem__() takes a key and an item");
    if (check(view)) return NULL;
    PyObject *value = Py_NewRef(SLOT(view, View__value));
    int failed = PyObject_SetItem(value, args[0], args[1]);
    Py_DECREF(value);
    return failed ? NULL : Py_NewRef(Py_None);
}

/* --- 8. Many values: `_store.keyed`, `_store.index`, `_store.log` ----------------------------- */

typedef struct { uint64_t version, epoch, base, end, easy, parts; } Position;
static int position_of(PyObject *state, Position *p) {
    PyObject *position = SLOT(state, State_position);
    if (!position || !PyTuple_CheckExact(position) || PyTuple_GET_SIZE(position) != 6) return 0;
    for (int i = 0; i < 6; i++) ((uint64_t *)p)[i] = (uint64_t)number(PyTuple_GET_ITEM(position, i));
    return 1;
}
/* The state, if it is of that version and nobody is about to change it; borrowed. */
static PyObject *state_at(PyObject *store, uint64_t version) {
    PyObject *state = SLOT(store, MemoryKeyedStore_state);
    return Py_TYPE(state) == class.State && number(SLOT(state, State_version)) == (int64_t)version
        && SLOT(state, State_changing) == Py_False ? state : NULL;
}
/* Where the one frame of a value lies; 0 where it has several, or none. */
static int extents_of(PyObject *place, int64_t *begin, int64_t *end) {
    if (!place || !PyTuple_CheckExact(place) || PyTuple_GET_SIZE(place) != 2) return 0;
    *begin = number(PyTuple_GET_ITEM(place, 0)), *end = number(PyTuple_GET_ITEM(place, 1));
    return 1;
}
/* Bytes of a value, whatever frames it has. */
static int64_t size_of(PyObject *place) {
    Py_ssize_t count = place && PyTuple_Check(place) ? PyTuple_GET_SIZE(place) : 0; /* Of what is patched its base. */
    return count ? number(PyTuple_GET_ITEM(place, count - 1)) - number(PyTuple_GET_ITEM(place, 0)) : 0;
}
static int is_plain_key(PyObject *key) {
    return PyUnicode_CheckExact(key) || PyLong_CheckExact(key) || PyBytes_CheckExact(key);
}
/* On the way to a later version: what is in the state's numbers comes there when it arrives. Meanwhile
 * the state is `changing`: who looks at it in an allocation of ours, another thread or a finalizer,
 * reads all anew. So does everybody where it never arrives. */
typedef struct { PyObject *state, *last; Position p; int64_t dead, live; } Course;
static int set_out(Course *c, PyObject *state) {
    if (SLOT(state, State_changing) != Py_False || !position_of(state, &c->p)) return 0;
    *c = (Course){state, NULL, c->p, number(SLOT(state, State_dead)), number(SLOT(state, State_live))};
    SET(state, State_changing, Py_NewRef(in_core));
    return 1;
}
/* `State.place`: the next version's key has its value from there to ``end``. */
static int place(Course *c, PyObject *key, uint64_t begin, uint64_t end) {
    PyObject *old = PyDict_GetItemWithError(SLOT(c->state, State_places), key);
    if (!old && PyErr_Occurred()) return -1;
    int64_t was = size_of(old);
    PyObject *extents = numbers((uint64_t[]){begin, end}, 2);
    if (!extents || PyDict_SetItem(SLOT(c->state, State_places), key, extents)) {
        Py_XDECREF(extents);
        return -1;
    }
    Py_XSETREF(c->last, extents);
    c->p.version++, c->p.end = end;
    c->dead += was, c->live += (int64_t)(end - begin) - was;
    return 0;
}
/* `State.stand_at` */
static int arrive(Course *c) {
    PyObject *position = NULL, *version = NULL, *dead = NULL, *live = NULL;
    if (c->last) {
        if (!(version = PyLong_FromUnsignedLongLong(c->p.version)) || !(dead = PyLong_FromLongLong(c->dead))
            || !(live = PyLong_FromLongLong(c->live)) || !(position = PyTuple_New(6))) goto failed;
        for (int i = 1; i < 6; i++) PyTuple_SET_ITEM(position, i, Py_NewRef(i == 3 ? PyTuple_GET_ITEM(c->last, 1) : PyTuple_GET_ITEM(SLOT(c->state, State_position), i)));
        PyTuple_SET_ITEM(position, 0, Py_NewRef(version));
        SET(c->state, State_dead, dead);
        SET(c->state, State_live, live);
        SET(c->state, State_position, position);
        SET(c->state, State_version, version);
        Py_CLEAR(c->last);
    }
    SET(c->state, State_changing, Py_NewRef(Py_False));
    return 0;
failed:
    Py_XDECREF(version); Py_XDECREF(dead); Py_XDECREF(live);
    Py_CLEAR(c->last);
    return -1;
}
/* How the pickle of a str begins that takes less than 256 bytes: protocol 5, a frame's size, a
 * short str's. Behind the text it is memoized, and that was all. */
static const uint8_t key_head[] = {0x80, 5, 0x95, 0, 0, 0, 0, 0, 0, 0, 0, 0x8C, 0};
enum { KEY_HEAD = sizeof key_head };

/* `encode_key` of a plain key: the same bytes. */
static PyObject *encode_key(PyObject *key) {
    Py_ssize_t size;
    const char *text = PyUnicode_CheckExact(key) ? PyUnicode_AsUTF8AndSize(key, &size) : NULL;
    if (text && size < 256) {
        PyObject *raw = PyBytes_FromStringAndSize(NULL, KEY_HEAD + size + 2);
        if (!raw) return NULL;
        char *to = PyBytes_AS_STRING(raw);
        memcpy(to, key_head, KEY_HEAD);
        memcpy(to + 3, &(uint64_t){(uint64_t)size + 4}, 8);
        to[KEY_HEAD - 1] = (char)size;
        memcpy(to + KEY_HEAD, text, (size_t)size);
        memcpy(to + KEY_HEAD + size, "\x94.", 2);
        return raw;
    }
    PyErr_Clear(); /* A lone surrogate. */
    return PyObject_CallFunctionObjArgs(py.dumps, key, five, NULL);
}
static PyObject *decode_key(const uint8_t *at, uint64_t size) {
    if (size >= KEY_HEAD + 2 && !memcmp(at, key_head, 3) && at[KEY_HEAD - 2] == 0x8C && at[KEY_HEAD - 1] == size - KEY_HEAD - 2 && at[size - 1] == '.')
        return PyUnicode_DecodeUTF8((const char *)at + KEY_HEAD, (Py_ssize_t)size - KEY_HEAD - 2, "surrogatepass");
    PyObject *raw = PyBytes_FromStringAndSize((const char *)at, (Py_ssize_t)size);
    PyObject *key = raw ? PyObject_CallOneArg(py.loads, raw) : NULL;
    Py_XDECREF(raw);
    return key;
}
/* The next record, up to that version's: 1 where it is followed; 0 where Python has to go on. */
static int follow_record(PyObject *store, Course *c, const Slot *newest) {
    uint64_t begin = (c->p.end + 7) & ~(uint64_t)7, head[5];
    uint8_t record[KEY_MOST];
    Map m;
    if (!map_of_store(store, &m) || begin < area_start(&m, newest->start) || begin + RECORD_BYTES > newest->end) return 0;
    memcpy(head, m.at + begin, sizeof head);
    uint64_t key_bytes = head[4] & ~ONE_KEY, at = head[3], size = head[2];
    if (!(head[4] & ONE_KEY) || head[1] != c->p.version + 1 || key_bytes > KEY_MOST - RECORD_BYTES || at != RECORD_BYTES + key_bytes
        || at > size || size > newest->end - begin) return 0;
    memcpy(record, head, sizeof head);
    memcpy(record + RECORD_BYTES, m.at + begin + RECORD_BYTES, key_bytes);
    after_copy();
    if (word(&m, OLDEST_READABLE) > c->p.epoch || crc32_of(record + 8, at - 8, 0) != (uint32_t)head[0] || head[0] >> 32) return 0;
    PyObject *key = decode_key(record + RECORD_BYTES, key_bytes);
    int found = key && is_plain_key(key) ? !place(c, key, begin + at, begin + size) : 0;
    Py_XDECREF(key);
    return found;
}
/* `Log.next_key`, of as many records as there are: 1 where the state is the newest now; 0 where
 * Python has to go on from what stands, 2 from a new snapshot; -1: exception. The store is busy. */
static int follow_records(PyObject *store, PyObject *state) {
    int found = 0;
    Course c;
    Slot slot;
    Map m;
    if (!set_out(&c, state)) return 0;
    for (int left = RECORDS_MOST, missed = 0; c.p.version && map_of_store(store, &m);) {
        uint64_t newest = version_of(&m);
        if ((found = newest == c.p.version) || newest < c.p.version) break;
        if (!load_slot(&m, newest, &slot)) { /* A writer was faster. */
            if (version_of(&m) == newest || missed++ > 10) break;
            continue;
        }
        if (slot.epoch != c.p.epoch && slot.epoch > 0) found = 2;
        if (slot.epoch != c.p.epoch || slot.parts != c.p.parts) break;
        while (c.p.version < newest && left-- > 0 && follow_record(store, &c, &slot)) ;
        if (c.p.version < newest) break;
    }
    PyObject *err = PyErr_Occurred() ? take_raised() : NULL;
    if (arrive(&c) && err) PyErr_Clear();
    if (err) raise_again(err);
    return PyErr_Occurred() ? -1 : found;
}
/* `refresh`, where the records that are new set one plain key each; as `follow_records`. It takes no
 * mutex: who has that is busy where the state must not change. Should an allocation of ours let
 * another thread in, that finds us busy no more than an interrupt would leave us, and overtakes. */
static int refresh(PyObject *store) {
    PyObject *state = SLOT(store, MemoryKeyedStore_state);
    if (Py_TYPE(state) != class.State || SLOT(store, MemoryKeyedStore__busy) != Py_False || SLOT(state, State_changing) != Py_False) return 0;
    Py_INCREF(state);
    SET(store, MemoryKeyedStore__busy, Py_NewRef(in_core));
    int found = follow_records(store, state);
    if (found == 2) {
        Py_SETREF(state, PyObject_CallFunctionObjArgs(py.load_snapshot, SLOT(store, MemoryKeyedStore_log), SLOT(store, MemoryKeyedStore__codec), NULL));
        if (!state) found = -1;
        else if (Py_TYPE(state) == class.State && SLOT(store, MemoryKeyedStore__busy) == in_core) {
            SET(store, MemoryKeyedStore_state, Py_NewRef(state));
            found = follow_records(store, state);
        }
    }
    if (SLOT(store, MemoryKeyedStore__busy) == in_core) SET(store, MemoryKeyedStore__busy, Py_NewRef(Py_False));
    Py_XDECREF(state);
    return found == 2 ? 0 : found;
}
/* Before the lock is waited for: then this is done beside its holder, not instead of the next one. */
static int catch_up_early(PyObject *store) {
    Map m;
    return map_of_store(store, &m) && !state_at(store, version_of(&m)) && refresh(store) < 0 ? -1 : 0;
}
/* `MemoryKeyedStore.current`, a new reference; something else than a State where Python's has that. */
static PyObject *current_state(PyObject *store) {
    for (int tries = 0; tries < 2; tries++) {
        Map m;
        PyObject *state = map_of_store(store, &m) ? state_at(store, version_of(&m)) : NULL;
        if (state) return Py_NewRef(state);
        int newest = tries ? 0 : refresh(store);
        if (newest < 0) return NULL;
        if (!newest) break;
    }
    return CALL0(store, current);
}
/* `_append_one`, and what `commit` does then: the version; None, with nothing done, where there is
 * more to it. */
static PyObject *append_one(PyObject *store, PyObject *key, PyObject *frames) {
    PyObject *frame = one_frame(frames), *region = SLOT(store, MemoryStore_region), *state, *stream = NULL, *version = NULL;
    Map m;
    Position p;
    if (!frame || !is_plain_key(key) || !map_of_store(store, &m) || !is_quick(store, &m)
        || !(state = state_at(store, version_of(&m))) || !position_of(state, &p)) return Py_NewRef(Py_None);
    int64_t size = PyBytes_GET_SIZE(frame), most = number(PyTuple_GET_ITEM(SLOT(region, Region_identity), 1));
    if (!p.version || (int64_t)p.end + size > number(SLOT(state, State_most)) || number(SLOT(state, State_live)) + size > most
        || 2 * number(SLOT(state, State_dead)) > (int64_t)(p.end - p.base) + SPARE_BYTES) return Py_NewRef(Py_None);
    Py_INCREF(state);
    if (!(stream = encode_key(key))) goto over;
    uint64_t key_bytes = (uint64_t)PyBytes_GET_SIZE(stream), at = RECORD_BYTES + key_bytes, start = (p.end + 7) & ~(uint64_t)7;
    uint64_t head[5] = {0, p.version + 1, at + (uint64_t)size, at, key_bytes | ONE_KEY};
    uint8_t record[KEY_MOST];
    p.version++, p.end = start + head[2];
    if (at > KEY_MOST || p.end > p.easy) goto more;
    if (!(version = PyLong_FromUnsignedLongLong(p.version))) goto over;
    memcpy(record, head, sizeof head);
    memcpy(record + RECORD_BYTES, PyBytes_AS_STRING(stream), key_bytes);
    head[0] = crc32_of(record + 8, at - 8, 0);
    memcpy(record, head, 8);
    if (!map_of_store(store, &m) || !is_quick(store, &m) || version_of(&m) != p.version - 1 || !is_stored(&m, (int64_t)start, (int64_t)p.end)) goto more;
    before_reuse();
#if PLANTED == 5
    publish(&m, p.version, start, p.end, p.epoch, p.parts);
#endif
    memcpy(m.at + start, record, at);
    memcpy(m.at + start + at, PyBytes_AS_STRING(frame), (size_t)size);
    publish(&m, p.version, start, p.end, p.epoch, p.parts);
    /* Else somebody uses the state this very moment: it catches up. */
    Course c;
    if (SLOT(store, MemoryKeyedStore__busy) == Py_False && SLOT(store, MemoryKeyedStore_state) == state
        && number(SLOT(state, State_version)) == (int64_t)p.version - 1 && set_out(&c, state)) {
        int failed = place(&c, key, start + at, p.end);
        if (arrive(&c) || failed) PyErr_Clear();
    }
    goto over;
more:
    Py_XSETREF(version, Py_NewRef(Py_None));
over:
    Py_DECREF(state);
    Py_XDECREF(stream);
    return version;
}
/* `commit` */
static PyObject *commit_keys(PyObject *store, PyObject *changes) {
    PyObject *changed = PyTuple_GET_ITEM(changes, 1);
    if (PySequence_Size(PyTuple_GET_ITEM(changes, 0)) == 0 && PySequence_Size(changed) == 1 && PyObject_Size(PyTuple_GET_ITEM(changes, 2)) == 0) {
        PyObject *item = PyList_CheckExact(changed) ? PyList_GET_ITEM(changed, 0) : PyTuple_GET_ITEM(changed, 0);
        PyObject *version = append_one(store, PyTuple_GET_ITEM(item, 0), PyTuple_GET_ITEM(item, 1));
        if (version != Py_None) return version;
        Py_DECREF(version);
    }
    return CALL1(store, commit, changes);
}
/* Whether these are the bytes that lie there; -1 where it is several frames, or another place. */
static int is_at(PyObject *store, PyObject *place, PyObject *frame) {
    int64_t begin, end;
    Map m;
    if (!frame || !extents_of(place, &begin, &end) || !map_of_store(store, &m) || !is_stored(&m, begin, end)) return -1;
    return PyBytes_GET_SIZE(frame) == end - begin && !memcmp(m.at + begin, PyBytes_AS_STRING(frame), (size_t)(end - begin));
}
static int is_plain_at(PyObject *store, PyObject *place) {
    int64_t begin, end;
    Map m;
    return extents_of(place, &begin, &end) && map_of_store(store, &m) && is_stored(&m, begin, end) && is_plain(m.at + begin, (size_t)(end - begin));
}
/* `KeyedStore._put` of one key's one frame. */
static PyObject *put_key(PyObject *store, PyObject *changes) {
    PyObject *item = PyTuple_GET_ITEM(PyTuple_GET_ITEM(changes, 1), 0), *state = current_state(store), *version = NULL;
    if (!state) return NULL;
    int same = 0;
    if (Py_TYPE(state) == class.State) {
        PyObject *place = PyDict_GetItemWithError(SLOT(state, State_places), PyTuple_GET_ITEM(item, 0));
        same = PyErr_Occurred() ? -2 : place ? is_at(store, place, one_frame(PyTuple_GET_ITEM(item, 1))) : 0;
        if (same == 1) version = Py_NewRef(SLOT(state, State_version));
    }
    Py_DECREF(state);
    if (same == 0) return commit_keys(store, changes);
    return same == -1 ? CALL1(store, _put, changes) : version;
}

/* --- 9. `SharedDict`, and its blocks: `_transaction.mapping` ---------------------------------- */

/* `MappingView._open` */
static int open_keys(PyObject *view, PyObject *share, PyObject *store) {
    PyObject *state = current_state(store), *writes = NULL, *base = NULL;
    if (!state) return -1;
    if (Py_TYPE(state) != class.State) {
        int failed = done(CALL2(view, _open, share, state));
        Py_DECREF(state);
        return failed;
    }
    if ((writes = class.WriteSet->tp_new(class.WriteSet, no_arguments, NULL))) base = PyList_New(1);
    if (!base) {
        Py_XDECREF(writes);
        Py_DECREF(state);
        return -1;
    }
    PyList_SET_ITEM(base, 0, Py_NewRef(SLOT(state, State_version)));
    SET(writes, WriteSet_store, Py_NewRef(store));
    SET(writes, WriteSet_state, state);
    SET(writes, WriteSet_gone, Py_NewRef(py.none));
    SET(writes, WriteSet_read, Py_NewRef(py.none));
    SET(writes, WriteSet_ends, Py_NewRef(Py_None));
    SET(writes, WriteSet_base, Py_NewRef(base));
    SET(view, View__share, Py_NewRef(share));
    SET(view, View__base, base);
    SET(view, View__failed, Py_NewRef(Py_None));
    SET(view, View__named, Py_NewRef(py.none));
    SET(view, View__value, writes);
    return 0;
}
/* Whether this is a write set of a block's own, of a store that we know, without deleted keys. */
static int is_simple(PyObject *writes) {
    return Py_TYPE(writes) == class.WriteSet && Py_TYPE(SLOT(writes, WriteSet_store)) == class.MemoryKeyedStore
        && Py_TYPE(SLOT(writes, WriteSet_state)) == class.State && PyDict_CheckExact(SLOT(writes, WriteSet_gone))
        && PyDict_GET_SIZE(SLOT(writes, WriteSet_gone)) == 0;
}
static int is_atom(PyObject *value) {
    PyTypeObject *type = Py_TYPE(value);
    return type == &PyLong_Type || type == &PyUnicode_Type || type == &PyFloat_Type || type == &PyBytes_Type
        || type == &PyBool_Type || value == Py_None || type == &PyComplex_Type;
}
/* `WriteSet.__missing__` */
static PyObject *dict_missing(PyObject *writes, PyObject *key) {
    int64_t begin, end;
    Map m;
    if (is_simple(writes)) {
        PyObject *state = SLOT(writes, WriteSet_state), *place = PyDict_GetItemWithError(SLOT(state, State_places), key);
        if (!place && PyErr_Occurred()) return NULL;
        if (extents_of(place, &begin, &end) && map_of_store(SLOT(writes, WriteSet_store), &m) && is_stored(&m, begin, end)) {
            PyObject *raw = PyBytes_FromStringAndSize((char *)m.at + begin, (Py_ssize_t)(end - begin));
            PyObject *frames = raw ? PyTuple_Pack(1, raw) : NULL;
            PyObject *value = frames ? decode_one(frames, SLOT(state, State_definitions)) : NULL;
            Py_XDECREF(raw);
            Py_XDECREF(frames);
            if (!value && PyErr_ExceptionMatches((PyObject *)class.UnloadableError)) PyErr_Clear(); /* Once more: it names the key. */
            else {
                if (value && !is_atom(value) && PyDict_SetItem(writes, key, value)) Py_CLEAR(value);
                return value;
            }
        }
    }
    return PyObject_CallFunctionObjArgs(py.dict_missing, writes, key, NULL);
}
/* `MappingView._changes`: 0 where there are none; 1 with these. */
static int changes_of_keys(PyObject *view, PyObject **changes) {
    PyObject *writes = SLOT(view, View__value), *definitions = NULL, *changed = NULL, *key, *value;
    Py_ssize_t at = 0, size;
    int way = 0; /* 1: by Python's; -1: exception. */
    *changes = NULL;
    if (Py_TYPE(view) != class.MappingView || !is_simple(writes)) goto slowly;
    if (!(size = PyDict_GET_SIZE(writes))) return 0;
    if (!(definitions = PyDict_New())) return -1;
    Py_INCREF(writes);
    while (!way && PyDict_Next(writes, &at, &key, &value)) {
        Py_INCREF(key); Py_INCREF(value);
        PyObject *store = SLOT(writes, WriteSet_store), *frames = encode(value, definitions), *place = NULL;
        if (!frames) way = PyErr_ExceptionMatches((PyObject *)class.UnpicklableError) ? (PyErr_Clear(), 1) : -1; /* It names the key. */
        else if ((way = is_naming()) || PyDict_GET_SIZE(writes) != size) way = way < 0 ? -1 : 1;
        else {
            place = Py_XNewRef(PyDict_GetItemWithError(SLOT(SLOT(writes, WriteSet_state), State_places), key));
            int same = PyErr_Occurred() ? -2 : place ? is_at(store, place, one_frame(frames)) : 0;
            if (same == -1) { /* Several frames. */
                PyObject *found = CALL2(store, holds, place, frames);
                same = found ? PyObject_IsTrue(found) : -2;
                Py_XDECREF(found);
            }
            if (!same && place && !(one_frame(frames) && is_plain_at(store, place))) {
                PyObject *found = PyObject_CallMethodObjArgs(view, str._is_same, key, frames, place, NULL);
                same = found ? PyObject_IsTrue(found) : -2;
                Py_XDECREF(found);
            }
            if (same < 0) way = -1;
            else if (!same) {
                PyObject *item = PyTuple_Pack(2, key, frames);
                if (!item || (!changed && !(changed = PyList_New(0))) || PyList_Append(changed, item)) way = -1;
                Py_XDECREF(item);
            }
        }
        Py_XDECREF(place); Py_XDECREF(frames);
        Py_DECREF(key); Py_DECREF(value);
    }
    Py_DECREF(writes);
    if (!way && changed) {
        PyObject *gone = PyList_New(0);
        way = gone && (*changes = PyTuple_Pack(3, gone, changed, definitions)) ? 0 : -1;
        Py_XDECREF(gone);
    }
    Py_XDECREF(changed);
    Py_DECREF(definitions);
    if (way < 1) return way ? -1 : *changes != NULL;
slowly:;
    PyObject *found = CALL0(view, _changes);
    if (found && found != Py_None) *changes = found; else Py_XDECREF(found);
    return !found ? -1 : *changes != NULL;
}
/* `MappingView.__getitem__` */
static PyObject *keys_get(PyObject *view, PyObject *key) {
    if (check(view)) return NULL;
    PyObject *writes = Py_NewRef(SLOT(view, View__value)), *value;
    if (Py_TYPE(writes) != class.WriteSet) value = PyObject_GetItem(writes, key);
    else if (!(value = Py_XNewRef(PyDict_GetItemWithError(writes, key))) && !PyErr_Occurred()) value = dict_missing(writes, key);
    Py_DECREF(writes);
    return value;
}
/* `SharedDict.__getitem__` */
static PyObject *dict_get(PyObject *dict, PyObject *key) {
    PyObject *store = store_of(dict, class.MemoryKeyedStore), *state = NULL, *raw = NULL;
    int64_t begin, end;
    Position p;
    Map m;
    if (!store) return PyObject_CallFunctionObjArgs(py.dict_get, dict, key, NULL);
    Py_INCREF(store);
    for (int tries = 0; tries < 2 && !state; tries++) {
        if (!map_of_store(store, &m)) break;
        if (!(state = state_at(store, version_of(&m))) && !tries && refresh(store) < 0) goto over;
    }
    if (state && position_of(state, &p)) {
        Py_INCREF(state);
        PyObject *place = PyDict_GetItemWithError(SLOT(state, State_places), key);
        if (extents_of(place, &begin, &end) && map_of_store(store, &m) && is_stored(&m, begin, end)) {
            raw = PyBytes_FromStringAndSize((char *)m.at + begin, (Py_ssize_t)(end - begin));
            after_copy();
            if (raw && (!map_of_store(store, &m) || word(&m, OLDEST_READABLE) > p.epoch)) Py_CLEAR(raw);
        }
        Py_DECREF(state);
        if (PyErr_Occurred()) goto over;
    }
    PyObject *value = raw ? PyObject_CallOneArg(py.loads, raw) : NULL;
    if (raw && !value && is_ordinary() && !PyErr_ExceptionMatches((PyObject *)class.UnknownDefinitionError)) {
        PyObject *err = take_raised();
        value = PyObject_CallMethodObjArgs(dict, str._refused, key, raw, err, NULL);
        Py_DECREF(err);
    } else if (!value && (!raw || PyErr_ExceptionMatches((PyObject *)class.UnknownDefinitionError))) {
        PyErr_Clear();
        value = PyObject_CallFunctionObjArgs(py.dict_get, dict, key, NULL);
    }
    Py_XDECREF(raw);
    Py_DECREF(store);
    return value;
over:
    Py_DECREF(store);
    return NULL;
}
/* `SharedDict.__setitem__` */
static PyObject *dict_set(PyObject *dict, PyObject *const *args, Py_ssize_t count) {
    if (count != 2) return PyErr_Format(PyExc_TypeError, "__setitem__() takes a key and a value");
    PyObject *store = store_of(dict, class.MemoryKeyedStore), *version = NULL;
    int by_python = !store;
    if (store) {
        Py_INCREF(store);
        PyObject *definitions = PyDict_New(), *frames = definitions ? encode(args[1], definitions) : NULL, *frame = frames ? one_frame(frames) : NULL;
        int naming = frames ? is_naming() : -1;
        if (!naming && frame && is_plain(PyBytes_AS_STRING(frame), (size_t)PyBytes_GET_SIZE(frame)) && store_of(dict, class.MemoryKeyedStore) == store) {
            PyObject *item = PyTuple_Pack(2, args[0], frames), *changed = item ? PyTuple_Pack(1, item) : NULL;
            PyObject *changes = changed ? PyTuple_Pack(3, no_arguments, changed, definitions) : NULL;
            Py_XDECREF(item);
            Py_XDECREF(changed);
            version = changes && !catch_up_early(store) ? put(store, changes, SLOT(dict, Shared__timeout), put_key) : NULL;
            Py_XDECREF(changes);
            if (version == Py_None) Py_SETREF(version, CALL2(dict, _set_in_block, args[0], args[1]));
        } else if (!naming) version = CALL2(dict, _set_in_block, args[0], args[1]);
        else if (naming > 0 || (!frames && PyErr_ExceptionMatches((PyObject *)class.UnpicklableError))) {
            PyErr_Clear(); /* Once more, all of it: it names the key, and keeps the share. */
            by_python = 1;
        }
        Py_XDECREF(frames);
        Py_XDECREF(definitions);
        Py_DECREF(store);
    }
    if (by_python) version = PyObject_CallFunctionObjArgs(py.dict_set, dict, args[0], args[1], NULL);
    if (!version) return NULL;
    Py_DECREF(version);
    Py_RETURN_NONE;
}

/* --- 10. The module -------------------------------------------------------------------------- */

static PyObject *is_encoding(PyObject *module, PyObject *unused) { return PyBool_FromLong(storing); }
/* Each stands for the Python method of the class and the name that `_compiled` says. */
static PyMethodDef methods[] = {
    {"share_get", (PyCFunction)(void *)share_get, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"share_set", (PyCFunction)(void *)share_set, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"locked", (PyCFunction)(void *)locked, METH_FASTCALL | METH_KEYWORDS, NULL},
    {"enter", enter, METH_NOARGS, NULL},
    {"exit", (PyCFunction)(void *)leave, METH_FASTCALL, NULL},
    {"view_get", view_get, METH_O, NULL},
    {"view_put", (PyCFunction)(void *)view_put, METH_FASTCALL, NULL},
    {"keys_get", keys_get, METH_O, NULL},
    {"dict_get", dict_get, METH_O, NULL},
    {"dict_set", (PyCFunction)(void *)dict_set, METH_FASTCALL, NULL},
    {"dict_missing", dict_missing, METH_O, NULL},
    {NULL, NULL, 0, NULL}};

/* method(class, name, as, doc): what is to stand in that class by that name. */
static PyObject *method(PyObject *module, PyObject *args) {
    PyTypeObject *of;
    const char *name, *as, *doc;
    if (!PyArg_ParseTuple(args, "O!sss", &PyType_Type, &of, &name, &as, &doc)) return NULL;
    for (PyMethodDef *one = methods; one->ml_name; one++) {
        if (strcmp(one->ml_name, name)) continue;
        PyMethodDef *made = PyMem_Malloc(sizeof *made); /* For good, as is what it names. */
        if (!made) return PyErr_NoMemory();
        *made = *one;
        made->ml_name = strdup(as);
        made->ml_doc = strdup(doc);
        return PyDescr_NewMethod(of, made);
    }
    return PyErr_Format(PyExc_KeyError, "no method %s", name);
}
/* By an operator they are called at once: no look for the method, no tuple of arguments. */
static objobjargproc generic; /* What a class in Python has there; it deletes. */
static int view_assign(PyObject *view, PyObject *key, PyObject *item) {
    return item ? done(view_put(view, (PyObject *[]){key, item}, 2)) : generic(view, key, item);
}
static int dict_assign(PyObject *dict, PyObject *key, PyObject *value) {
    return value ? done(dict_set(dict, (PyObject *[]){key, value}, 2)) : generic(dict, key, value);
}
/* put(class, name, method): as setattr, which lets operators look for the method. */
static PyObject *put_method(PyObject *module, PyObject *args) {
    PyTypeObject *of;
    PyObject *name, *made;
    if (!PyArg_ParseTuple(args, "O!UO", &PyType_Type, &of, &name, &made) || PyObject_SetAttr((PyObject *)of, name, made)) return NULL;
    PyTypeObject *all[] = {of, of == class.View ? class.ObjectView : of};
    for (int i = 0; i < 2 && Py_IS_TYPE(made, &PyMethodDescr_Type); i++) {
        void *function = (void *)((PyMethodDescrObject *)made)->d_method->ml_meth;
        PyMappingMethods *operators = all[i]->tp_as_mapping;
        if (function == (void *)view_get || function == (void *)keys_get || function == (void *)dict_get)
            operators->mp_subscript = (binaryfunc)function;
        else if (function == (void *)view_put || function == (void *)dict_set) {
            if (!i) generic = operators->mp_ass_subscript;
            operators->mp_ass_subscript = function == (void *)view_put ? view_assign : dict_assign;
        }
    }
    Py_RETURN_NONE;
}
/* bind(names): all that `handed_in` lists; then methods can be had. */
static PyObject *bind(PyObject *module, PyObject *names) {
    for (int i = 0; handed_in[i].name; i++) {
        PyObject *given = PyDict_GetItemString(names, handed_in[i].name);
        if (!given) return PyErr_Format(PyExc_ImportError, "%s is not handed in", handed_in[i].name);
        *handed_in[i].to = Py_NewRef(given);
    }
    for (int i = 0; i < SLOTS_END; i++) {
        PyObject *of = PyDict_GetItemString(names, slot_names[i].of);
        PyObject *found = of && PyType_Check(of) ? PyDict_GetItemString(((PyTypeObject *)of)->tp_dict, slot_names[i].name) : NULL;
        if (!found || !Py_IS_TYPE(found, &PyMemberDescr_Type)) return PyErr_Format(PyExc_ImportError, "%s has no slot %s", slot_names[i].of, slot_names[i].name);
        offsets[i] = ((PyMemberDescrObject *)found)->d_member->offset;
    }
    if (!PyDict_CheckExact(py.by_address) || !PyDict_CheckExact(py.buffered) || !PyDict_CheckExact(py.named) || !PySet_CheckExact(py.taken_by_value) || !PyDict_CheckExact(py.codec) || !PyDict_CheckExact(py.modules))
        return PyErr_Format(PyExc_ImportError, "what is handed in is not what is looked into");
    is_native_local = PyObject_IsTrue(py.native_local);
    class.Transaction->tp_finalize = gone;
    class.Transaction->tp_dealloc = class.View->tp_dealloc = class.ObjectView->tp_dealloc = class.MappingView->tp_dealloc = free_slots;
    Py_RETURN_NONE;
}
static PyMethodDef functions[] = {
    {"bind", bind, METH_O, NULL}, {"method", method, METH_VARARGS, NULL}, {"put", put_method, METH_VARARGS, NULL},
    {"is_encoding", is_encoding, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};

static int execute(PyObject *module) {
    static int is_there;
    if (PyInterpreterState_Get() != PyInterpreterState_Main() || is_there++) {
        PyErr_SetString(PyExc_ImportError, "the core is the main interpreter's, and there once");
        return -1;
    }
    make_crc_table();
    cpu_set_t cores;
    spin_ns = sched_getaffinity(0, sizeof cores, &cores) || CPU_COUNT(&cores) > 1 ? SPIN_NS : 0;
#define X(name) if (!(str.name = PyUnicode_InternFromString(#name))) return -1;
    NAMES(X)
#undef X
    asyncio_tasks = PyUnicode_InternFromString("asyncio.tasks");
    greenlets = PyUnicode_InternFromString("greenlet._greenlet");
    trio = PyUnicode_InternFromString("trio");
    torch = PyUnicode_InternFromString("torch");
    zero = PyLong_FromLong(0);
    five = PyLong_FromLong(5);
    dumps_names = Py_BuildValue("(s)", "buffer_callback");
    no_arguments = PyTuple_New(0);
    in_core = PyUnicode_InternFromString("in the core");
    if (!asyncio_tasks || !greenlets || !trio || !torch || !zero || !five || !dumps_names || !no_arguments || !in_core) return -1;
    return PyModule_AddObjectRef(module, "IN_CORE", in_core) || PyModule_AddIntConstant(module, "PLANTED", PLANTED);
}
static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "mmapshare._core", NULL, 0, functions, slots, NULL, NULL, NULL};
PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&module); }
