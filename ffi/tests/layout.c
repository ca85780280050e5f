/* The header is what it promises to be: included twice, in every dialect, with the sizes that compiled programs rely on. The
 * library asserts the same figures in ffi/src/types.rs. */
#include <entgldb.h>
#include <entgldb.h>

#include <stddef.h>

#define SAME(name, condition) typedef char name[(condition) ? 1 : -1]

#if UINTPTR_MAX == UINT64_MAX
SAME(bytes, sizeof(entgldb_bytes) == 16 && offsetof(entgldb_bytes, len) == 8);
SAME(buffer, sizeof(entgldb_buffer) == 24 && offsetof(entgldb_buffer, cap) == 16);
SAME(doc, sizeof(entgldb_doc) == 80 && offsetof(entgldb_doc, key) == 16 && offsetof(entgldb_doc, content) == 32);
SAME(doc_end, offsetof(entgldb_doc, hlc) == 48 && offsetof(entgldb_doc, reserved) == 56);
SAME(store, sizeof(entgldb_store) == 96 && offsetof(entgldb_store, ctx) == 8);
SAME(store_2, offsetof(entgldb_store, apply) == 16 && offsetof(entgldb_store, read) == 24);
SAME(store_3, offsetof(entgldb_store, remove) == 32 && offsetof(entgldb_store, enumerate) == 40);
SAME(store_4, offsetof(entgldb_store, begin) == 48 && offsetof(entgldb_store, commit) == 56);
SAME(store_5, offsetof(entgldb_store, rollback) == 64 && offsetof(entgldb_store, outbox) == 72);
SAME(store_6, offsetof(entgldb_store, resolve) == 80 && offsetof(entgldb_store, destroy) == 88);
#endif
SAME(status, sizeof(entgldb_status) == 4);

int main(void) {
    bytes a;
    (void)sizeof a;
    return entgldb_str("abc").len == 3 && entgldb_str(NULL).len == 0 && entgldb_abi_version() == ENTGLDB_ABI_VERSION ? 0 : 1;
}
