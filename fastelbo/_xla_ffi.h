/* The part of XLA's FFI (xla/ffi/api/c_api.h, major version 0) that a handler on the CPU needs, declared by hand:
   nothing of jaxlib is needed to compile, and one binary serves every version, since within a major version fields
   are only ever appended. Every struct begins with its own size and a list of extensions. */
#ifndef FE_XLA_FFI
#define FE_XLA_FFI
#include <fenv.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct fe_extension { size_t struct_size; int type; struct fe_extension *next; } fe_extension;
typedef struct { size_t struct_size; fe_extension *next; int major_version, minor_version; } fe_version;
typedef struct { size_t struct_size; fe_version version; uint32_t traits; } fe_metadata;
typedef struct { fe_extension base; fe_metadata *metadata; } fe_metadata_request;
typedef struct { size_t struct_size; fe_extension *next; int dtype; void *data; int64_t rank; int64_t *dims; } fe_buffer;
typedef struct { const char *text; size_t length; } fe_string;
typedef struct { size_t struct_size; fe_extension *next; int64_t size; int *types; void **items; } fe_buffers;
typedef struct {
    size_t struct_size; fe_extension *next; int64_t size; int *types; fe_string **names; void **items;
} fe_attributes;
typedef struct { size_t struct_size; fe_extension *next; const char *message; int code; } fe_error_request;
typedef struct {
    size_t struct_size; fe_extension *next; fe_version version; const void *internal;
    void *(*error_create)(fe_error_request *);
} fe_api;
typedef struct {
    size_t struct_size; fe_extension *next; const fe_api *api; void *context; int stage;
    fe_buffers arguments, results; fe_attributes attributes;
} fe_frame;

enum { FE_METADATA = 1, FE_EXECUTE = 3, FE_STRING = 4, FE_INVALID_ARGUMENT = 3 };

/* Whether XLA only asks who we are. The answer is the version that it asks with: a handler of 0.0 is refused. */
static inline int fe_is_introduction(fe_frame *frame) {
    if (!frame->next || frame->next->type != FE_METADATA)
        return 0;
    fe_metadata *metadata = ((fe_metadata_request *)frame->next)->metadata;
    metadata->version.struct_size = sizeof(fe_version);
    metadata->version.major_version = 0;
    metadata->version.minor_version = frame->api ? frame->api->version.minor_version : 1;
    metadata->traits = 0;
    return 1;
}

static inline void *fe_error(fe_frame *frame, const char *message) {
    fe_error_request request = {sizeof request, 0, message, FE_INVALID_ARGUMENT};
    return frame->api->error_create(&request);
}

/* What is known of a text, found without Python and its lock. Entries are made under that lock, are never taken back,
   and are complete before they can be seen. */
enum { FE_ENTRIES = 4096 };
typedef struct { uint64_t hash; fe_string text; void *plan; } fe_entry;
static fe_entry *fe_entries[FE_ENTRIES];
#ifdef _MSC_VER
#define FE_SEE(place) (*(fe_entry *volatile *)(place))
#define FE_SHOW(place, entry) (*(fe_entry *volatile *)(place) = (entry))
#else
#define FE_SEE(place) __atomic_load_n(place, __ATOMIC_ACQUIRE)
#define FE_SHOW(place, entry) __atomic_store_n(place, entry, __ATOMIC_RELEASE)
#endif

/* Where the entry of a text is, or would be; NULL where all is full. */
static inline fe_entry **fe_place(const char *text, size_t length, uint64_t *hash) {
    size_t i;
    *hash = 14695981039346656037u;                                  /* FNV-1a */
    for (i = 0; i < length; i++)
        *hash = (*hash ^ (unsigned char)text[i]) * 1099511628211u;
    for (i = 0; i < FE_ENTRIES; i++) {
        fe_entry **place = &fe_entries[(*hash + i) % FE_ENTRIES], *entry = FE_SEE(place);
        if (!entry || (entry->hash == *hash && entry->text.length == length && !memcmp(entry->text.text, text, length)))
            return place;
    }
    return 0;
}

static inline void *fe_find(const char *text, size_t length) {
    uint64_t hash;
    fe_entry **place = fe_place(text, length, &hash), *entry = place ? FE_SEE(place) : 0;
    return entry ? entry->plan : 0;
}

/* Whether a text of its own memory is known from now on. */
static inline int fe_keep(const char *text, size_t length, void *plan) {
    uint64_t hash;
    fe_entry **place = fe_place(text, length, &hash), *entry;
    if (!place || *place || !(entry = (fe_entry *)malloc(sizeof *entry)))
        return 0;
    entry->hash = hash, entry->text.text = text, entry->text.length = length, entry->plan = plan;
    FE_SHOW(place, entry);
    return 1;
}

/* XLA's threads flush denormals to zero; kernels, and NumPy, want them. */
static inline void fe_enter(fenv_t *kept) {
    fegetenv(kept);
    fesetenv(FE_DFL_ENV);
}

static inline void fe_leave(const fenv_t *kept) { fesetenv(kept); }
#endif
