/* See entgldb_sqlite.h for what this does, and docs/protocol/mapping.md for how rows become documents. */
#include "entgldb_sqlite.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUSY_MS 5000
#define CHECKPOINT_PAGES 1000
#define COLUMNS_MAX 2000
#define KEY_BYTES_MAX 1024

/* ---- text that grows ------------------------------------------------------------------------------------------------ */

typedef struct text {
    char *data;
    size_t len, cap;
    int failed; /* memory ran out: everything after is lost, and the caller answers SQLITE_NOMEM */
} text;

static void text_bytes(text *out, const void *data, size_t len) {
    if (out->failed) return;
    if (out->len + len + 1 > out->cap) {
        size_t cap = (out->len + len + 1) * 2;
        char *grown = realloc(out->data, cap);
        if (!grown) {
            out->failed = 1;
            return;
        }
        out->data = grown;
        out->cap = cap;
    }
    if (len) memcpy(out->data + out->len, data, len);
    out->len += len;
    out->data[out->len] = 0;
}

static void text_str(text *out, const char *str) { text_bytes(out, str, strlen(str)); }

static void text_clear(text *out) {
    out->len = 0;
    if (out->data) out->data[0] = 0;
}

static void text_free(text *out) {
    free(out->data);
    memset(out, 0, sizeof *out);
}

/* An SQL identifier. */
static void text_name(text *out, const char *name) {
    text_str(out, "\"");
    for (; *name; name++) {
        if (*name == '"') text_str(out, "\"");
        text_bytes(out, name, 1);
    }
    text_str(out, "\"");
}

/* An SQL string. */
static void text_literal(text *out, const char *str) {
    text_str(out, "'");
    for (; *str; str++) {
        if (*str == '\'') text_str(out, "'");
        text_bytes(out, str, 1);
    }
    text_str(out, "'");
}

/* ---- values to JSON ------------------------------------------------------------------------------------------------- */

static int is_utf8_without_nul(const unsigned char *s, size_t n) {
    size_t i = 0;
    while (i < n) {
        unsigned char c = s[i];
        size_t more = c < 0x80 ? 0 : c >= 0xC2 && c < 0xE0 ? 1 : c >= 0xE0 && c < 0xF0 ? 2 : c >= 0xF0 && c < 0xF5 ? 3 : 9;
        if (c == 0 || more == 9 || more >= n - i) return 0;
        if ((c == 0xE0 && s[i + 1] < 0xA0) || (c == 0xED && s[i + 1] > 0x9F)) return 0;
        if ((c == 0xF0 && s[i + 1] < 0x90) || (c == 0xF4 && s[i + 1] > 0x8F)) return 0;
        for (i++; more > 0; more--, i++) {
            if ((s[i] & 0xC0) != 0x80) return 0;
        }
    }
    return 1;
}

static void json_string(text *out, const char *s, size_t n) {
    size_t i, from = 0;
    text_str(out, "\"");
    for (i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        char escape[8];
        const char *known = c == '"' ? "\\\"" : c == '\\' ? "\\\\" : c == '\b' ? "\\b" : c == '\t' ? "\\t" : c == '\n' ? "\\n"
                          : c == '\f' ? "\\f" : c == '\r' ? "\\r" : NULL;
        if (!known && c >= 0x20) continue;
        if (!known) snprintf(escape, sizeof escape, "\\u%04x", (unsigned)c);
        text_bytes(out, s + from, i - from);
        text_str(out, known ? known : escape);
        from = i + 1;
    }
    text_bytes(out, s + from, n - from);
    text_str(out, "\"");
}

static void json_base64(text *out, const char *tag, const unsigned char *data, size_t n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t i;
    text_str(out, "{\"");
    text_str(out, tag);
    text_str(out, "\":\"");
    for (i = 0; i < n; i += 3) {
        unsigned long group = (unsigned long)data[i] << 16;
        char four[4];
        if (i + 1 < n) group |= (unsigned long)data[i + 1] << 8;
        if (i + 2 < n) group |= data[i + 2];
        four[0] = digits[group >> 18 & 63];
        four[1] = digits[group >> 12 & 63];
        four[2] = i + 1 < n ? digits[group >> 6 & 63] : '=';
        four[3] = i + 2 < n ? digits[group & 63] : '=';
        text_bytes(out, four, 4);
    }
    text_str(out, "\"}");
}

/* The shortest digits that read back the same, laid out as the mapping says. */
static void json_real(text *out, double value) {
    char raw[40], digits[20], piece[32];
    int precision, n = 0, exponent, k, i;
    const char *at;
    if (value == 0) {
        text_str(out, 1 / value < 0 ? "-0.0" : "0.0");
        return;
    }
    if (value > 1.7976931348623157e308 || value < -1.7976931348623157e308) {
        text_str(out, value > 0 ? "{\"$real\":\"inf\"}" : "{\"$real\":\"-inf\"}");
        return;
    }
    /* 15 digits are exact for most; only numbers next to zero need fewer than they are given. */
    for (precision = value < 1e-300 && value > -1e-300 ? 1 : 15; precision <= 17; precision++) {
        snprintf(raw, sizeof raw, "%.*e", precision - 1, value);
        if (strtod(raw, NULL) == value) break;
    }
    for (at = raw; *at && *at != 'e'; at++) {
        if (*at >= '0' && *at <= '9') digits[n++] = *at;
    }
    exponent = atoi(at + 1);
    while (n > 1 && digits[n - 1] == '0') n--;
    k = exponent + 1;
    if (value < 0) text_str(out, "-");
    if (n <= k && k <= 16) {
        text_bytes(out, digits, (size_t)n);
        for (i = n; i < k; i++) text_str(out, "0");
        text_str(out, ".0");
    } else if (0 < k && k <= 16) {
        text_bytes(out, digits, (size_t)k);
        text_str(out, ".");
        text_bytes(out, digits + k, (size_t)(n - k));
    } else if (-5 < k && k <= 0) {
        text_str(out, "0.");
        for (i = k; i < 0; i++) text_str(out, "0");
        text_bytes(out, digits, (size_t)n);
    } else {
        text_bytes(out, digits, 1);
        if (n > 1) {
            text_str(out, ".");
            text_bytes(out, digits + 1, (size_t)(n - 1));
        }
        snprintf(piece, sizeof piece, "e%d", k - 1);
        text_str(out, piece);
    }
}

static void json_value(text *out, sqlite3_value *value) {
    const unsigned char *data;
    char digits[32];
    size_t n;
    switch (sqlite3_value_type(value)) {
    case SQLITE_NULL:
        text_str(out, "null");
        break;
    case SQLITE_INTEGER:
        snprintf(digits, sizeof digits, "%lld", (long long)sqlite3_value_int64(value));
        text_str(out, digits);
        break;
    case SQLITE_FLOAT:
        json_real(out, sqlite3_value_double(value));
        break;
    case SQLITE_TEXT:
        data = sqlite3_value_text(value);
        n = (size_t)sqlite3_value_bytes(value);
        if (!data) {
            out->failed = 1;
        } else if (is_utf8_without_nul(data, n)) {
            json_string(out, (const char *)data, n);
        } else {
            json_base64(out, "$text", data, n);
        }
        break;
    default:
        data = sqlite3_value_blob(value);
        json_base64(out, "$blob", data, (size_t)sqlite3_value_bytes(value));
        break;
    }
}

/* ---- JSON to values ------------------------------------------------------------------------------------------------- */

/* The engine has checked every document (UTF-8, JSON, depth), so this only has to find its way, never beyond the end. */
typedef struct json {
    const char *at, *end;
} json;

static void json_blank(json *in) {
    while (in->at < in->end && strchr(" \t\r\n", *in->at)) in->at++;
}

static int json_take(json *in, char c) {
    json_blank(in);
    if (in->at >= in->end || *in->at != c) return 0;
    in->at++;
    return 1;
}

/* Passes a value over; its text is from the place before to the place after. */
static int json_skip(json *in) {
    int depth = 0, in_string = 0;
    json_blank(in);
    if (in->at >= in->end) return 0;
    for (; in->at < in->end; in->at++) {
        char c = *in->at;
        if (in_string) {
            if (c == '\\') {
                in->at++;
            } else if (c == '"') {
                in_string = 0;
                if (depth == 0) {
                    in->at++;
                    return 1;
                }
            }
        } else if (c == '"') {
            in_string = 1;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (depth == 0) return 1;
            if (--depth == 0) {
                in->at++;
                return 1;
            }
        } else if (depth == 0 && strchr(",: \t\r\n", c)) {
            return 1;
        }
    }
    return !in_string && depth == 0;
}

static unsigned json_hex(json *in) {
    unsigned value = 0;
    int i;
    for (i = 0; i < 4 && in->at < in->end; i++, in->at++) {
        char c = *in->at;
        value = value * 16 + (unsigned)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    return value;
}

static void text_code_point(text *out, unsigned c) {
    char bytes[4];
    if (c < 0x80) {
        bytes[0] = (char)c;
        text_bytes(out, bytes, 1);
    } else if (c < 0x800) {
        bytes[0] = (char)(0xC0 | c >> 6);
        bytes[1] = (char)(0x80 | (c & 63));
        text_bytes(out, bytes, 2);
    } else if (c < 0x10000) {
        bytes[0] = (char)(0xE0 | c >> 12);
        bytes[1] = (char)(0x80 | (c >> 6 & 63));
        bytes[2] = (char)(0x80 | (c & 63));
        text_bytes(out, bytes, 3);
    } else {
        bytes[0] = (char)(0xF0 | c >> 18);
        bytes[1] = (char)(0x80 | (c >> 12 & 63));
        bytes[2] = (char)(0x80 | (c >> 6 & 63));
        bytes[3] = (char)(0x80 | (c & 63));
        text_bytes(out, bytes, 4);
    }
}

/* Reads a string into `out`. */
static int json_text(json *in, text *out) {
    text_clear(out);
    text_bytes(out, "", 0);
    if (!json_take(in, '"')) return 0;
    while (in->at < in->end && *in->at != '"') {
        const char *from = in->at;
        char c;
        while (in->at < in->end && *in->at != '"' && *in->at != '\\') in->at++;
        text_bytes(out, from, (size_t)(in->at - from));
        if (in->at + 1 >= in->end || *in->at == '"') continue;
        c = in->at[1];
        in->at += 2;
        if (c == 'u') {
            unsigned code = json_hex(in);
            if (code >= 0xD800 && code < 0xDC00 && in->end - in->at >= 6) {
                in->at += 2;
                code = 0x10000 + ((code - 0xD800) << 10) + (json_hex(in) - 0xDC00);
            }
            text_code_point(out, code);
        } else {
            char plain = c == 'b' ? '\b' : c == 't' ? '\t' : c == 'n' ? '\n' : c == 'f' ? '\f' : c == 'r' ? '\r' : c;
            text_bytes(out, &plain, 1);
        }
    }
    return in->at < in->end && *in->at++ == '"' && !out->failed;
}

/* Decodes base64 in place. */
static int base64_decode(text *in) {
    unsigned long group = 0;
    size_t i, out = 0;
    int bits = 0;
    for (i = 0; i < in->len && in->data[i] != '='; i++) {
        char c = in->data[i];
        int digit = c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : c >= '0' && c <= '9' ? c - '0' + 52
                  : c == '+' ? 62 : c == '/' ? 63 : -1;
        if (digit < 0) return 0;
        group = (group << 6 | (unsigned long)digit) & 0xFFFFFF;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            in->data[out++] = (char)(group >> bits & 255);
        }
    }
    in->len = out;
    return 1;
}

/* A whole number that fits 64 bits, and nothing else. */
static int whole_number(const char *s, size_t n, sqlite3_int64 *out) {
    size_t i = n > 0 && s[0] == '-';
    sqlite3_uint64 value = 0, most = i ? (sqlite3_uint64)1 << 63 : ((sqlite3_uint64)1 << 63) - 1;
    if (i == n) return 0;
    for (; i < n; i++) {
        unsigned digit = (unsigned)(s[i] - '0');
        if (digit > 9 || value > (most - digit) / 10) return 0;
        value = value * 10 + digit;
    }
    *out = s[0] == '-' ? (sqlite3_int64)(0 - value) : (sqlite3_int64)value;
    return 1;
}

/* {"$blob":"..."} and its like. Answers 0 if it is another object. */
static int bind_tagged(sqlite3_stmt *to, int place, json in, int *code) {
    text tag = {0}, value = {0};
    int is = json_take(&in, '{') && json_text(&in, &tag) && json_take(&in, ':') && json_text(&in, &value) &&
             json_take(&in, '}') && tag.len > 0 && tag.data[0] == '$';
    if (is && strcmp(tag.data, "$blob") == 0 && base64_decode(&value)) {
        *code = sqlite3_bind_blob64(to, place, value.data, value.len, SQLITE_TRANSIENT);
    } else if (is && strcmp(tag.data, "$text") == 0 && base64_decode(&value)) {
        *code = sqlite3_bind_text64(to, place, value.data, value.len, SQLITE_TRANSIENT, SQLITE_UTF8);
    } else if (is && strcmp(tag.data, "$real") == 0) {
        *code = sqlite3_bind_double(to, place, value.data[0] == '-' ? -HUGE_VAL : HUGE_VAL);
    } else {
        is = 0;
    }
    text_free(&tag);
    text_free(&value);
    return is;
}

/* An object or an array as text without white space. */
static int bind_compact(sqlite3_stmt *to, int place, const char *s, size_t n) {
    text out = {0};
    size_t i;
    int in_string = 0, code;
    for (i = 0; i < n; i++) {
        if (in_string && s[i] == '\\') {
            text_bytes(&out, s + i++, 1);
        } else if (s[i] == '"') {
            in_string = !in_string;
        } else if (!in_string && strchr(" \t\r\n", s[i])) {
            continue;
        }
        text_bytes(&out, s + i, 1);
    }
    code = out.failed ? SQLITE_NOMEM : sqlite3_bind_text64(to, place, out.data, out.len, SQLITE_TRANSIENT, SQLITE_UTF8);
    text_free(&out);
    return code;
}

/* Binds a JSON value as the mapping says. SQLITE_MISMATCH: a number that no column can hold. */
static int bind_json(sqlite3_stmt *to, int place, const char *s, size_t n) {
    json in;
    text plain = {0};
    sqlite3_int64 whole;
    int code = SQLITE_MISMATCH;
    in.at = s;
    in.end = s + n;
    if (n == 0) return SQLITE_MISMATCH;
    switch (s[0]) {
    case 'n':
        return sqlite3_bind_null(to, place);
    case 't':
    case 'f':
        return sqlite3_bind_int(to, place, s[0] == 't');
    case '"':
        if (json_text(&in, &plain)) code = sqlite3_bind_text64(to, place, plain.data, plain.len, SQLITE_TRANSIENT, SQLITE_UTF8);
        text_free(&plain);
        return code;
    case '{':
        return bind_tagged(to, place, in, &code) ? code : bind_compact(to, place, s, n);
    case '[':
        return bind_compact(to, place, s, n);
    default:
        if (whole_number(s, n, &whole)) return sqlite3_bind_int64(to, place, whole);
        if (!memchr(s, '.', n) && !memchr(s, 'e', n) && !memchr(s, 'E', n)) return SQLITE_MISMATCH;
        text_bytes(&plain, s, n);
        if (plain.failed) return SQLITE_NOMEM;
        code = sqlite3_bind_double(to, place, strtod(plain.data, NULL));
        text_free(&plain);
        return code;
    }
}

/* ---- tables --------------------------------------------------------------------------------------------------------- */

typedef struct column {
    char *name;
    char *fallback; /* SQL of its default */
    int key;        /* place in the primary key from 1, or 0 */
    int is_integer, is_text;
} column;

typedef struct table {
    char *name;
    column *columns; /* sorted by the bytes of their names */
    int count, keys;
    int key_at[64];                                     /* where the key columns are, in the key's order */
    sqlite3_stmt *select, *upsert, *erase, *page;       /* made when first needed */
    sqlite3_stmt *extra_get, *extra_put, *extra_erase;
} table;

struct entgldb_sqlite {
    sqlite3 *db;
    table *tables;
    size_t count;
    sqlite3_int64 seen; /* the last note that the outbox hook has looked at */
    table *paging;      /* whose page statement stands in the middle */
    text last_key;      /* the last key that it gave */
    sqlite3_stmt *begin, *commit, *rollback, *outbox, *outbox_erase, *outbox_last;
    entgldb_sqlite_applied applied;
    void *applied_ctx;
    text error; /* why the last hook failed, if SQLite does not know */
};

static char *copy(const char *from) {
    size_t n = strlen(from) + 1;
    char *out = malloc(n);
    if (out) memcpy(out, from, n);
    return out;
}

static int contains(const char *type, const char *part) {
    size_t n = strlen(part);
    for (; *type; type++) {
        if (sqlite3_strnicmp(type, part, (int)n) == 0) return 1;
    }
    return 0;
}

static int by_name(const void *a, const void *b) { return strcmp(((const column *)a)->name, ((const column *)b)->name); }

static int prepare(sqlite3 *db, const text *sql, sqlite3_stmt **out) {
    if (sql->failed) return SQLITE_NOMEM;
    return sqlite3_prepare_v3(db, sql->data, -1, SQLITE_PREPARE_PERSISTENT, out, NULL);
}

static int prepare_str(sqlite3 *db, const char *sql, sqlite3_stmt **out) {
    return *out ? SQLITE_OK : sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL);
}

/* Steps a statement that gives no rows. */
static int run(sqlite3_stmt *statement) {
    int code;
    sqlite3_step(statement);
    code = sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    return code;
}

static int load_table(entgldb_sqlite *self, table *t, const char *name, text *why) {
    sqlite3_stmt *info = NULL;
    int code, i;
    t->name = copy(name);
    t->columns = calloc(COLUMNS_MAX, sizeof(column));
    if (!t->name || !t->columns) return SQLITE_NOMEM;
    code = sqlite3_prepare_v2(self->db, "SELECT name, type, pk, dflt_value FROM pragma_table_xinfo(?1) WHERE hidden = 0", -1,
                              &info, NULL);
    if (code == SQLITE_OK) code = sqlite3_bind_text(info, 1, name, -1, SQLITE_STATIC);
    while (code == SQLITE_OK && sqlite3_step(info) == SQLITE_ROW && t->count < COLUMNS_MAX) {
        column *c = &t->columns[t->count++];
        const char *type = (const char *)sqlite3_column_text(info, 1);
        const char *fallback = (const char *)sqlite3_column_text(info, 3);
        c->name = copy((const char *)sqlite3_column_text(info, 0));
        c->fallback = copy(fallback ? fallback : "NULL");
        c->key = sqlite3_column_int(info, 2);
        c->is_integer = type && contains(type, "INT");
        c->is_text = type && !c->is_integer && (contains(type, "CHAR") || contains(type, "CLOB") || contains(type, "TEXT"));
        if (!c->name || !c->fallback) code = SQLITE_NOMEM;
    }
    sqlite3_finalize(info);
    if (code != SQLITE_OK) return code;
    qsort(t->columns, (size_t)t->count, sizeof(column), by_name);
    for (i = 0; i < t->count; i++) {
        int key = t->columns[i].key;
        if (key > t->keys) t->keys = key;
        if (key > 0 && key <= 64) t->key_at[key - 1] = i;
    }
    if (t->keys == 0 || t->keys > 64) {
        text_str(why, t->count == 0 ? "there is no table " : "no primary key of 1 to 64 columns: table ");
        text_str(why, name);
        return SQLITE_ERROR;
    }
    return SQLITE_OK;
}

static const column *key_column(const table *t, int place) { return &t->columns[t->key_at[place]]; }

static int has_plain_key(const table *t) {
    return t->keys == 1 && (key_column(t, 0)->is_integer || key_column(t, 0)->is_text);
}

/* ", " between, nothing before the first. */
static void listed(text *sql, const table *t, int keys_only, const char *before, const char *after) {
    int i, n = keys_only ? t->keys : t->count;
    for (i = 0; i < n; i++) {
        if (i) text_str(sql, ", ");
        text_str(sql, before);
        text_name(sql, keys_only ? key_column(t, i)->name : t->columns[i].name);
        text_str(sql, after);
    }
}

static void where_key(text *sql, const table *t, int first) {
    int i;
    char place[16];
    for (i = 0; i < t->keys; i++) {
        text_str(sql, i ? " AND " : " WHERE ");
        text_name(sql, key_column(t, i)->name);
        snprintf(place, sizeof place, " = ?%d", first + i);
        text_str(sql, place);
    }
}

/* The note of a row: its key column as it is, or the SQL literals of several. */
static void note_of(text *sql, const table *t, const char *row) {
    int i;
    for (i = 0; i < t->keys; i++) {
        if (i) text_str(sql, " || ',' || ");
        if (t->keys > 1) text_str(sql, "quote(");
        text_str(sql, row);
        text_name(sql, key_column(t, i)->name);
        if (t->keys > 1) text_str(sql, ")");
    }
}

#define NOW_MS "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)"

static void note_sql(text *sql, const table *t, const char *row, const char *condition) {
    text_str(sql, " INSERT INTO _entgldb_host_outbox(tbl, key, at) SELECT ");
    text_literal(sql, t->name);
    text_str(sql, ", ");
    note_of(sql, t, row);
    text_str(sql, ", " NOW_MS);
    text_str(sql, condition);
    text_str(sql, ";");
}

/* One trigger for each kind of write. They fire in every connection of every program but the adapter's own. */
static int make_triggers(entgldb_sqlite *self, const table *t) {
    static const char *const kinds[] = {"INSERT", "UPDATE", "DELETE"};
    int kind, code = SQLITE_OK;
    for (kind = 0; kind < 3 && code == SQLITE_OK; kind++) {
        text sql = {0}, name = {0}, moved = {0};
        text_str(&name, "_entgldb_host_");
        text_str(&name, kinds[kind]);
        text_str(&name, "_");
        text_str(&name, t->name);
        text_str(&sql, "DROP TRIGGER IF EXISTS ");
        text_name(&sql, name.failed ? "" : name.data);
        text_str(&sql, "; CREATE TRIGGER ");
        text_name(&sql, name.failed ? "" : name.data);
        text_str(&sql, " AFTER ");
        text_str(&sql, kinds[kind]);
        text_str(&sql, " ON ");
        text_name(&sql, t->name);
        text_str(&sql, " BEGIN");
        if (kind == 1) {
            /* A row that got another key is two documents: the old one is gone. */
            text_str(&moved, " WHERE (");
            note_of(&moved, t, "OLD.");
            text_str(&moved, ") IS NOT (");
            note_of(&moved, t, "NEW.");
            text_str(&moved, ")");
            note_sql(&sql, t, "OLD.", moved.failed ? "" : moved.data);
        }
        note_sql(&sql, t, kind == 2 ? "OLD." : "NEW.", "");
        text_str(&sql, " END");
        code = sql.failed || name.failed || moved.failed ? SQLITE_NOMEM : sqlite3_exec(self->db, sql.data, NULL, NULL, NULL);
        text_free(&sql);
        text_free(&name);
        text_free(&moved);
    }
    return code;
}

/* ---- keys ----------------------------------------------------------------------------------------------------------- */

/* The document key of a row's key columns. 0 if it has none: such a row cannot travel. */
static int key_text(const table *t, sqlite3_value **values, text *out) {
    int i;
    text_clear(out);
    if (has_plain_key(t)) {
        int type = sqlite3_value_type(values[0]);
        if (type == SQLITE_NULL || type == SQLITE_BLOB) return 0;
        if (type == SQLITE_FLOAT) {
            json_real(out, sqlite3_value_double(values[0]));
        } else {
            const char *s = (const char *)sqlite3_value_text(values[0]);
            text_bytes(out, s, (size_t)sqlite3_value_bytes(values[0]));
        }
    } else {
        text_str(out, "[");
        for (i = 0; i < t->keys; i++) {
            if (sqlite3_value_type(values[i]) == SQLITE_NULL) return 0;
            if (i) text_str(out, ",");
            json_value(out, values[i]);
        }
        text_str(out, "]");
    }
    return !out->failed && out->len > 0 && out->len <= KEY_BYTES_MAX &&
           is_utf8_without_nul((const unsigned char *)out->data, out->len);
}

/* SQL: _entgldb_key(number of the table, key columns ...), for the order of pages. */
static void key_function(sqlite3_context *context, int count, sqlite3_value **values) {
    entgldb_sqlite *self = sqlite3_user_data(context);
    text key = {0};
    size_t number = (size_t)sqlite3_value_int(values[0]);
    (void)count;
    if (number < self->count && key_text(&self->tables[number], values + 1, &key)) {
        sqlite3_result_text(context, key.data, (int)key.len, SQLITE_TRANSIENT);
    } else {
        sqlite3_result_null(context);
    }
    text_free(&key);
}

/* Binds a document key to the key columns from place `first` on. SQLITE_MISMATCH: it would not read back as itself. */
static int bind_key(const table *t, sqlite3_stmt *to, int first, const char *key, size_t n) {
    json in;
    int i, code = SQLITE_OK;
    sqlite3_int64 whole;
    char again[32];
    if (has_plain_key(t) && key_column(t, 0)->is_text) return sqlite3_bind_text64(to, first, key, n, SQLITE_TRANSIENT, SQLITE_UTF8);
    if (has_plain_key(t)) {
        if (whole_number(key, n, &whole)) {
            snprintf(again, sizeof again, "%lld", (long long)whole);
            return strlen(again) == n && memcmp(again, key, n) == 0 ? sqlite3_bind_int64(to, first, whole) : SQLITE_MISMATCH;
        }
        if (n == 0 || strchr("+-.0123456789 \t\r\n\f\v", key[0])) return SQLITE_MISMATCH;
        return sqlite3_bind_text64(to, first, key, n, SQLITE_TRANSIENT, SQLITE_UTF8);
    }
    in.at = key;
    in.end = key + n;
    if (!json_take(&in, '[')) return SQLITE_MISMATCH;
    for (i = 0; i < t->keys && code == SQLITE_OK; i++) {
        const char *from;
        if (i > 0 && !json_take(&in, ',')) return SQLITE_MISMATCH;
        json_blank(&in);
        from = in.at;
        if (!json_skip(&in) || from == in.at || *from == 'n') return SQLITE_MISMATCH;
        code = bind_json(to, first + i, from, (size_t)(in.at - from));
    }
    if (code == SQLITE_OK && (!json_take(&in, ']') || in.at != in.end)) return SQLITE_MISMATCH;
    return code;
}

/* ---- rows as documents ---------------------------------------------------------------------------------------------- */

/* The row that a statement stands on, whose columns from `first` on are the table's. */
static void row_json(const table *t, sqlite3_stmt *row, int first, text *out) {
    int i;
    text_clear(out);
    text_str(out, "{");
    for (i = 0; i < t->count; i++) {
        if (i) text_str(out, ",");
        json_string(out, t->columns[i].name, strlen(t->columns[i].name));
        text_str(out, ":");
        json_value(out, sqlite3_column_value(row, first + i));
    }
    text_str(out, "}");
}

/* The value of a member; NULL if there is none. */
static const char *member(const char *object, size_t n, const char *name, size_t name_len, size_t *len) {
    json in;
    text found = {0};
    const char *value = NULL;
    in.at = object;
    in.end = object + n;
    if (!json_take(&in, '{')) return NULL;
    while (!value && json_text(&in, &found) && json_take(&in, ':')) {
        const char *from;
        json_blank(&in);
        from = in.at;
        if (!json_skip(&in)) break;
        if (found.len == name_len && memcmp(found.data, name, name_len) == 0) {
            value = from;
            *len = (size_t)(in.at - from);
        }
        if (!json_take(&in, ',')) break;
    }
    text_free(&found);
    return value;
}

static int is_same(const char *a, size_t a_len, const char *b, size_t b_len) {
    return a && b && a_len == b_len && memcmp(a, b, a_len) == 0;
}

/* One member of a document that is being put together. */
typedef struct piece {
    char *name;
    size_t name_len;
    const char *value;
    size_t len;
} piece;

static int by_piece(const void *a, const void *b) {
    const piece *x = a, *y = b;
    int order = memcmp(x->name, y->name, x->name_len < y->name_len ? x->name_len : y->name_len);
    return order ? order : (x->name_len > y->name_len) - (x->name_len < y->name_len);
}

/* The document came as `sent` and became a row that reads `made`; now the row reads `now`. What nobody changed stays as it was
 * sent; what was changed is as it is now. */
static int rejoin(const table *t, const char *sent, const char *made, text *now) {
    size_t sent_len = strlen(sent), made_len = strlen(made), count = 0, i;
    text name = {0}, out = {0};
    json in;
    piece *pieces;
    if (is_same(now->data, now->len, made, made_len)) {
        text_clear(now);
        text_str(now, sent);
        return now->failed ? SQLITE_NOMEM : SQLITE_OK;
    }
    pieces = calloc(sent_len / 4 + (size_t)t->count + 1, sizeof(piece));
    if (!pieces) return SQLITE_NOMEM;
    in.at = sent;
    in.end = sent + sent_len;
    if (json_take(&in, '{')) {
        while (json_text(&in, &name) && json_take(&in, ':')) {
            piece *p = &pieces[count++];
            const char *is, *was;
            size_t is_len = 0, was_len = 0;
            json_blank(&in);
            p->value = in.at;
            if (!json_skip(&in)) break;
            p->len = (size_t)(in.at - p->value);
            is = member(now->data, now->len, name.data, name.len, &is_len);
            was = member(made, made_len, name.data, name.len, &was_len);
            if (is && !is_same(is, is_len, was, was_len)) {
                p->value = is;
                p->len = is_len;
            }
            p->name = name.data;
            p->name_len = name.len;
            memset(&name, 0, sizeof name);
            if (!json_take(&in, ',')) break;
        }
    }
    for (i = 0; i < (size_t)t->count; i++) {
        size_t name_len = strlen(t->columns[i].name), is_len = 0, was_len = 0, sent_at = 0;
        const char *is = member(now->data, now->len, t->columns[i].name, name_len, &is_len);
        const char *was = member(made, made_len, t->columns[i].name, name_len, &was_len);
        if (member(sent, sent_len, t->columns[i].name, name_len, &sent_at) || is_same(is, is_len, was, was_len)) continue;
        pieces[count].name = copy(t->columns[i].name);
        pieces[count].name_len = name_len;
        pieces[count].value = is;
        pieces[count++].len = is_len;
    }
    qsort(pieces, count, sizeof(piece), by_piece);
    text_str(&out, "{");
    for (i = 0; i < count; i++) {
        if (i) text_str(&out, ",");
        json_string(&out, pieces[i].name ? pieces[i].name : "", pieces[i].name_len);
        text_str(&out, ":");
        text_bytes(&out, pieces[i].value, pieces[i].len);
        free(pieces[i].name);
    }
    text_str(&out, "}");
    free(pieces);
    text_free(&name);
    text_free(now);
    *now = out;
    return now->failed ? SQLITE_NOMEM : SQLITE_OK;
}

static int extra_sql(entgldb_sqlite *self, table *t) {
    int code = prepare_str(self->db, "SELECT sent, made FROM _entgldb_host_extra WHERE tbl = ?1 AND key = ?2", &t->extra_get);
    if (code == SQLITE_OK) {
        code = prepare_str(self->db, "INSERT OR REPLACE INTO _entgldb_host_extra(tbl, key, sent, made) VALUES (?1, ?2, ?3, ?4)",
                           &t->extra_put);
    }
    if (code == SQLITE_OK) {
        code = prepare_str(self->db, "DELETE FROM _entgldb_host_extra WHERE tbl = ?1 AND key = ?2", &t->extra_erase);
    }
    return code;
}

static void bind_extra(sqlite3_stmt *to, const table *t, const char *key, size_t n) {
    sqlite3_bind_text(to, 1, t->name, -1, SQLITE_STATIC);
    sqlite3_bind_text64(to, 2, key, n, SQLITE_TRANSIENT, SQLITE_UTF8);
}

/* Puts back what the row could not hold. */
static int with_extra(entgldb_sqlite *self, table *t, const char *key, size_t n, text *doc) {
    int code = extra_sql(self, t);
    if (code != SQLITE_OK) return code;
    bind_extra(t->extra_get, t, key, n);
    if (sqlite3_step(t->extra_get) == SQLITE_ROW) {
        code = rejoin(t, (const char *)sqlite3_column_text(t->extra_get, 0), (const char *)sqlite3_column_text(t->extra_get, 1), doc);
    }
    if (code == SQLITE_OK) return sqlite3_reset(t->extra_get);
    sqlite3_reset(t->extra_get);
    return code;
}

/* Reads a row into `doc`. `*found` says whether it is there. */
static int read_row(entgldb_sqlite *self, table *t, const char *key, size_t n, text *doc, int *found) {
    int code = SQLITE_OK;
    *found = 0;
    if (!t->select) {
        text sql = {0};
        text_str(&sql, "SELECT ");
        listed(&sql, t, 0, "", "");
        text_str(&sql, " FROM ");
        text_name(&sql, t->name);
        where_key(&sql, t, 1);
        code = prepare(self->db, &sql, &t->select);
        text_free(&sql);
        if (code != SQLITE_OK) return code;
    }
    code = bind_key(t, t->select, 1, key, n);
    if (code == SQLITE_MISMATCH) return SQLITE_OK; /* no row can have this key */
    if (code == SQLITE_OK && sqlite3_step(t->select) == SQLITE_ROW) {
        *found = 1;
        row_json(t, t->select, 0, doc);
    }
    if (code == SQLITE_OK) code = sqlite3_reset(t->select);
    return doc->failed ? SQLITE_NOMEM : code;
}

/* ---- writing -------------------------------------------------------------------------------------------------------- */

/* INSERT ... ON CONFLICT DO UPDATE. Columns without a member get their default, so the statement depends on `given`. With
 * `replace` every row that collides goes, on whatever constraint. */
static void upsert_sql(const table *t, const unsigned char *given, int replace, text *sql) {
    int i, n = 0, sets = 0;
    char place[16];
    text_str(sql, replace ? "INSERT OR REPLACE INTO " : "INSERT INTO ");
    text_name(sql, t->name);
    text_str(sql, "(");
    for (i = 0; i < t->count; i++) {
        if (!given[i]) continue;
        if (n++) text_str(sql, ", ");
        text_name(sql, t->columns[i].name);
    }
    text_str(sql, ") VALUES (");
    for (i = 0, n = 0; i < t->count; i++) {
        if (!given[i]) continue;
        snprintf(place, sizeof place, "%s?%d", n++ ? ", " : "", i + 1);
        text_str(sql, place);
    }
    text_str(sql, ")");
    if (replace) return;
    text_str(sql, " ON CONFLICT(");
    listed(sql, t, 1, "", "");
    text_str(sql, ") DO ");
    for (i = 0; i < t->count; i++) {
        if (t->columns[i].key) continue;
        text_str(sql, sets++ ? ", " : "UPDATE SET ");
        text_name(sql, t->columns[i].name);
        text_str(sql, " = ");
        if (given[i]) {
            text_str(sql, "excluded.");
            text_name(sql, t->columns[i].name);
        } else {
            text_str(sql, "(");
            text_str(sql, t->columns[i].fallback);
            text_str(sql, ")");
        }
    }
    if (!sets) text_str(sql, "NOTHING");
}

static int write_row(entgldb_sqlite *self, table *t, const entgldb_doc *doc, int replace) {
    const char *content = (const char *)doc->content.data, *key = (const char *)doc->key.data;
    unsigned char given[COLUMNS_MAX];
    sqlite3_stmt *statement = NULL;
    text sql = {0};
    int i, all = !replace, code = SQLITE_OK, k;
    for (i = 0; i < t->count; i++) {
        size_t len = 0;
        given[i] = t->columns[i].key || member(content, doc->content.len, t->columns[i].name, strlen(t->columns[i].name), &len);
        all = all && given[i];
    }
    statement = all ? t->upsert : NULL;
    if (!statement) {
        upsert_sql(t, given, replace, &sql);
        code = prepare(self->db, &sql, &statement);
        text_free(&sql);
        if (code != SQLITE_OK) return code;
        if (all) t->upsert = statement;
    }
    for (i = 0; i < t->count && code == SQLITE_OK; i++) {
        size_t len = 0;
        const char *value = member(content, doc->content.len, t->columns[i].name, strlen(t->columns[i].name), &len);
        if (given[i] && !t->columns[i].key) code = bind_json(statement, i + 1, value, len);
    }
    if (code == SQLITE_OK) {
        /* The key decides over the key columns: through a statement that has them side by side. */
        sqlite3_stmt *split = NULL;
        text places = {0};
        text_str(&places, "SELECT ");
        for (k = 0; k < t->keys; k++) text_str(&places, k ? ", ?" : "?");
        code = prepare(self->db, &places, &split);
        text_free(&places);
        if (code == SQLITE_OK) code = bind_key(t, split, 1, key, doc->key.len);
        if (code == SQLITE_OK && sqlite3_step(split) == SQLITE_ROW) {
            for (k = 0; k < t->keys && code == SQLITE_OK; k++) {
                code = sqlite3_bind_value(statement, t->key_at[k] + 1, sqlite3_column_value(split, k));
            }
        }
        sqlite3_finalize(split);
    }
    if (code == SQLITE_MISMATCH) {
        text_str(&self->error, "a value that no column can hold, or a key that would not read back as itself");
    }
    if (code == SQLITE_OK) {
        code = run(statement);
    } else {
        sqlite3_clear_bindings(statement);
    }
    if (!all) sqlite3_finalize(statement);
    return code;
}

/* Writes a document, and keeps beside the row what the row does not give back. */
static int put(entgldb_sqlite *self, table *t, const entgldb_doc *doc, text *made) {
    const char *key = (const char *)doc->key.data, *content = (const char *)doc->content.data;
    int found = 0, code = write_row(self, t, doc, 0);
    if (code == SQLITE_OK) code = read_row(self, t, key, doc->key.len, made, &found);
    if (code == SQLITE_OK) code = extra_sql(self, t);
    if (code != SQLITE_OK) return code;
    if (!found) {
        text_str(&self->error, "the row cannot be read back under its key");
        return SQLITE_MISMATCH;
    }
    if (is_same(made->data, made->len, content, doc->content.len)) {
        bind_extra(t->extra_erase, t, key, doc->key.len);
        return run(t->extra_erase);
    }
    bind_extra(t->extra_put, t, key, doc->key.len);
    sqlite3_bind_text64(t->extra_put, 3, content, doc->content.len, SQLITE_TRANSIENT, SQLITE_UTF8);
    sqlite3_bind_text64(t->extra_put, 4, made->data, made->len, SQLITE_TRANSIENT, SQLITE_UTF8);
    return run(t->extra_put);
}

static int erase(entgldb_sqlite *self, table *t, const entgldb_doc *doc) {
    const char *key = (const char *)doc->key.data;
    int code = extra_sql(self, t);
    if (code == SQLITE_OK && !t->erase) {
        text sql = {0};
        text_str(&sql, "DELETE FROM ");
        text_name(&sql, t->name);
        where_key(&sql, t, 1);
        code = prepare(self->db, &sql, &t->erase);
        text_free(&sql);
    }
    if (code != SQLITE_OK) return code;
    code = bind_key(t, t->erase, 1, key, doc->key.len);
    if (code == SQLITE_MISMATCH) return SQLITE_OK;
    if (code == SQLITE_OK) code = run(t->erase);
    bind_extra(t->extra_erase, t, key, doc->key.len);
    return code == SQLITE_OK ? run(t->extra_erase) : code;
}

/* ---- rows that collide ---------------------------------------------------------------------------------------------- */

/* A trigger of this connection only that notes which rows a statement removes; it goes with the unit if that is undone. Without effect before SQLite 3.35, where such
 * triggers are silent with all others: then nothing is told, and what collides is set aside. */
static int watch_removals(entgldb_sqlite *self, table *t) {
    text sql = {0};
    char number[32];
    int i, code;
    snprintf(number, sizeof number, "%d", (int)(t - self->tables));
    text_str(&sql, "CREATE TEMP TABLE IF NOT EXISTS _entgldb_removed(key TEXT); CREATE TEMP TRIGGER IF NOT EXISTS _entgldb_removed_");
    text_str(&sql, number);
    text_str(&sql, " AFTER DELETE ON main.");
    text_name(&sql, t->name);
    text_str(&sql, " BEGIN INSERT INTO _entgldb_removed VALUES(_entgldb_key(");
    text_str(&sql, number);
    for (i = 0; i < t->keys; i++) {
        text_str(&sql, ", OLD.");
        text_name(&sql, key_column(t, i)->name);
    }
    text_str(&sql, ")); END");
    code = sql.failed ? SQLITE_NOMEM : sqlite3_exec(self->db, sql.data, NULL, NULL, NULL);
    text_free(&sql);
    return code;
}

/* Tells which rows a document collides with, on whatever unique index: those that REPLACE removes. Then that is undone. */
static void tell_blocked(entgldb_sqlite *self, table *t, const entgldb_doc *doc, entgldb_reply *reply) {
    sqlite3_stmt *removed = NULL;
    if (watch_removals(self, t) != SQLITE_OK || sqlite3_exec(self->db, "SAVEPOINT _entgldb_look", NULL, NULL, NULL) != SQLITE_OK) return;
    if (sqlite3_exec(self->db, "DELETE FROM temp._entgldb_removed", NULL, NULL, NULL) == SQLITE_OK &&
        write_row(self, t, doc, 1) == SQLITE_OK &&
        prepare_str(self->db, "SELECT key FROM temp._entgldb_removed WHERE key <> ?1", &removed) == SQLITE_OK) {
        sqlite3_bind_text64(removed, 1, (const char *)doc->key.data, doc->key.len, SQLITE_STATIC, SQLITE_UTF8);
        while (sqlite3_step(removed) == SQLITE_ROW) {
            entgldb_bytes key;
            key.data = sqlite3_column_text(removed, 0);
            key.len = (size_t)sqlite3_column_bytes(removed, 0);
            entgldb_reply_blocked(reply, doc->collection, key);
        }
        sqlite3_finalize(removed);
    }
    sqlite3_exec(self->db, "ROLLBACK TO _entgldb_look; RELEASE _entgldb_look", NULL, NULL, NULL);
}

/* ---- hooks ---------------------------------------------------------------------------------------------------------- */

static table *find(entgldb_sqlite *self, entgldb_bytes name) {
    size_t i;
    for (i = 0; i < self->count; i++) {
        const char *known = self->tables[i].name;
        if (is_same(known, strlen(known), (const char *)name.data, name.len)) return &self->tables[i];
    }
    return NULL;
}

/* Ends a page that stands in the middle: it would keep an old view of the database. */
static void end_page(entgldb_sqlite *self) {
    if (self->paging) sqlite3_reset(self->paging->page);
    self->paging = NULL;
}

/* What an SQLite result means to the engine. */
static entgldb_status answer(entgldb_sqlite *self, int code, entgldb_reply *reply) {
    int kind = code & 255;
    if (code == SQLITE_OK) return ENTGLDB_OK;
    if (reply) {
        const char *why = self->error.len ? self->error.data : code == SQLITE_NOMEM ? "out of memory" : sqlite3_errmsg(self->db);
        entgldb_reply_error(reply, entgldb_str(why));
    }
    text_clear(&self->error);
    if (kind == SQLITE_BUSY || kind == SQLITE_LOCKED || kind == SQLITE_FULL || kind == SQLITE_IOERR || kind == SQLITE_READONLY ||
        kind == SQLITE_CANTOPEN || kind == SQLITE_NOMEM || kind == SQLITE_CORRUPT || kind == SQLITE_NOTADB) {
        return ENTGLDB_ERROR_STORE;
    }
    return ENTGLDB_ERROR_HOOK;
}

static int unknown_table(entgldb_sqlite *self, entgldb_bytes name) {
    text_str(&self->error, "the adapter was not opened for the table ");
    text_bytes(&self->error, name.data, name.len);
    return SQLITE_ERROR;
}

static entgldb_status hook_apply(void *ctx, const entgldb_doc *docs, size_t n, entgldb_reply *reply) {
    entgldb_sqlite *self = ctx;
    text made = {0};
    size_t i;
    int code = SQLITE_OK;
    end_page(self);
    for (i = 0; i < n && code == SQLITE_OK; i++) {
        table *t = find(self, docs[i].collection);
        code = t ? put(self, t, &docs[i], &made) : unknown_table(self, docs[i].collection);
        if (t && (code & 255) == SQLITE_CONSTRAINT && reply) {
            if (!self->error.len) text_str(&self->error, sqlite3_errmsg(self->db));
            tell_blocked(self, t, &docs[i], reply);
        }
    }
    text_free(&made);
    if (code == SQLITE_OK && self->applied) code = self->applied(self->applied_ctx, self->db, docs, n, 0);
    return answer(self, code, reply);
}

static entgldb_status hook_remove(void *ctx, const entgldb_doc *keys, size_t n, entgldb_reply *reply) {
    entgldb_sqlite *self = ctx;
    size_t i;
    int code = SQLITE_OK;
    end_page(self);
    for (i = 0; i < n && code == SQLITE_OK; i++) {
        table *t = find(self, keys[i].collection);
        code = t ? erase(self, t, &keys[i]) : unknown_table(self, keys[i].collection);
    }
    if (code == SQLITE_OK && self->applied) code = self->applied(self->applied_ctx, self->db, keys, n, 1);
    return answer(self, code, reply);
}

static entgldb_status hook_read(void *ctx, const entgldb_doc *keys, size_t n, entgldb_reply *reply) {
    entgldb_sqlite *self = ctx;
    text doc = {0};
    size_t i;
    int code = SQLITE_OK;
    for (i = 0; i < n && code == SQLITE_OK; i++) {
        table *t = find(self, keys[i].collection);
        const char *key = (const char *)keys[i].key.data;
        entgldb_bytes content;
        int found = 0;
        if (t) code = read_row(self, t, key, keys[i].key.len, &doc, &found);
        if (code == SQLITE_OK && found) code = with_extra(self, t, key, keys[i].key.len, &doc);
        content.data = (const uint8_t *)doc.data;
        content.len = doc.len;
        if (code == SQLITE_OK && (found ? entgldb_reply_doc(reply, content) : entgldb_reply_missing(reply)) != ENTGLDB_OK) {
            code = SQLITE_ERROR;
        }
    }
    text_free(&doc);
    return answer(self, code, reply);
}

/* All rows in the order of their keys, from one key on. */
static int begin_page(entgldb_sqlite *self, table *t, entgldb_bytes after) {
    int code = SQLITE_OK;
    char number[32];
    end_page(self);
    if (!t->page) {
        text sql = {0};
        snprintf(number, sizeof number, "%lu", (unsigned long)(t - self->tables));
        text_str(&sql, "SELECT * FROM (SELECT _entgldb_key(");
        text_str(&sql, number);
        text_str(&sql, ", ");
        listed(&sql, t, 1, "", "");
        text_str(&sql, ") AS _entgldb_k, ");
        listed(&sql, t, 0, "", "");
        text_str(&sql, " FROM ");
        text_name(&sql, t->name);
        text_str(&sql, ") WHERE _entgldb_k > ?1 COLLATE BINARY ORDER BY _entgldb_k COLLATE BINARY");
        code = prepare(self->db, &sql, &t->page);
        text_free(&sql);
    }
    if (code == SQLITE_OK) {
        code = sqlite3_bind_text64(t->page, 1, after.len ? (const char *)after.data : "", after.len, SQLITE_TRANSIENT, SQLITE_UTF8);
    }
    if (code == SQLITE_OK) self->paging = t;
    return code;
}

static entgldb_status hook_enumerate(void *ctx, entgldb_bytes collection, entgldb_bytes after, uint32_t limit,
                                     entgldb_reply *reply) {
    entgldb_sqlite *self = ctx;
    table *t = find(self, collection);
    text doc = {0};
    uint32_t given;
    int code = SQLITE_OK;
    if (!t) return answer(self, unknown_table(self, collection), reply);
    /* Sorting all rows once for all pages: the statement goes on where it stood. */
    if (self->paging != t || !is_same(self->last_key.data, self->last_key.len, (const char *)after.data, after.len)) {
        code = begin_page(self, t, after);
    }
    for (given = 0; given < limit && code == SQLITE_OK; given++) {
        entgldb_bytes key, content;
        code = sqlite3_step(t->page);
        if (code != SQLITE_ROW) break;
        key.data = sqlite3_column_text(t->page, 0);
        key.len = (size_t)sqlite3_column_bytes(t->page, 0);
        row_json(t, t->page, 1, &doc);
        code = with_extra(self, t, (const char *)key.data, key.len, &doc);
        text_clear(&self->last_key);
        text_bytes(&self->last_key, key.data, key.len);
        content.data = (const uint8_t *)doc.data;
        content.len = doc.len;
        if (doc.failed || self->last_key.failed) code = SQLITE_NOMEM;
        if (code == SQLITE_OK && entgldb_reply_entry(reply, key, content) != ENTGLDB_OK) code = SQLITE_ERROR;
    }
    text_free(&doc);
    if (code != SQLITE_OK) end_page(self);
    return answer(self, code == SQLITE_DONE ? SQLITE_OK : code, reply);
}

static entgldb_status hook_begin(void *ctx) {
    entgldb_sqlite *self = ctx;
    int code;
    end_page(self);
    if (!sqlite3_get_autocommit(self->db)) sqlite3_exec(self->db, "ROLLBACK", NULL, NULL, NULL);
    code = prepare_str(self->db, "BEGIN IMMEDIATE", &self->begin);
    return answer(self, code == SQLITE_OK ? run(self->begin) : code, NULL);
}

static entgldb_status hook_rollback(void *ctx) {
    entgldb_sqlite *self = ctx;
    end_page(self);
    if (sqlite3_get_autocommit(self->db)) return ENTGLDB_OK; /* SQLite has undone it by itself */
    return answer(self, sqlite3_exec(self->db, "ROLLBACK", NULL, NULL, NULL), NULL);
}

static entgldb_status hook_commit(void *ctx) {
    entgldb_sqlite *self = ctx;
    sqlite3_int64 last = 0;
    int code = prepare_str(self->db, "SELECT max(id) FROM _entgldb_host_outbox", &self->outbox_last);
    if (code == SQLITE_OK) {
        if (sqlite3_step(self->outbox_last) == SQLITE_ROW) last = sqlite3_column_int64(self->outbox_last, 0);
        code = sqlite3_reset(self->outbox_last);
    }
    /* Nobody else can write since `begin`: what is noted now is all there is. */
    if (code == SQLITE_OK && last > self->seen) {
        entgldb_status status = hook_rollback(self);
        return status == ENTGLDB_OK ? ENTGLDB_OUTBOX_MOVED : status;
    }
    if (code == SQLITE_OK) code = prepare_str(self->db, "COMMIT", &self->commit);
    return answer(self, code == SQLITE_OK ? run(self->commit) : code, NULL);
}

/* The key of a note; 0 if its row cannot travel. */
static int noted_key(entgldb_sqlite *self, const table *t, sqlite3_value *note, text *out) {
    sqlite3_value *values[64];
    sqlite3_stmt *split = NULL;
    text sql = {0};
    int i, found = 0;
    if (t->keys == 1) return key_text(t, &note, out);
    /* The trigger wrote it with quote(): it holds nothing but literals. */
    text_str(&sql, "SELECT ");
    text_bytes(&sql, sqlite3_value_text(note), (size_t)sqlite3_value_bytes(note));
    if (!sql.failed && sqlite3_prepare_v2(self->db, sql.data, -1, &split, NULL) == SQLITE_OK &&
        sqlite3_column_count(split) == t->keys && sqlite3_step(split) == SQLITE_ROW) {
        for (i = 0; i < t->keys; i++) values[i] = sqlite3_column_value(split, i);
        found = key_text(t, values, out);
    }
    sqlite3_finalize(split);
    text_free(&sql);
    return found;
}

static entgldb_status hook_outbox(void *ctx, uint64_t after, uint32_t limit, entgldb_reply *reply) {
    entgldb_sqlite *self = ctx;
    text key = {0};
    int code;
    end_page(self);
    code = prepare_str(self->db, "DELETE FROM _entgldb_host_outbox WHERE id <= ?1", &self->outbox_erase);
    if (code == SQLITE_OK) {
        sqlite3_bind_int64(self->outbox_erase, 1, (sqlite3_int64)after);
        code = run(self->outbox_erase);
        /* It only tidies up: it can wait for a writer. */
        if ((code & 255) == SQLITE_BUSY) code = SQLITE_OK;
    }
    if (code == SQLITE_OK) {
        code = prepare_str(self->db, "SELECT id, tbl, key, at FROM _entgldb_host_outbox WHERE id > ?1 ORDER BY id LIMIT ?2",
                           &self->outbox);
    }
    if (code == SQLITE_OK) {
        sqlite3_bind_int64(self->outbox, 1, (sqlite3_int64)after);
        sqlite3_bind_int64(self->outbox, 2, limit);
        if ((sqlite3_int64)after > self->seen) self->seen = (sqlite3_int64)after;
        while (code == SQLITE_OK && sqlite3_step(self->outbox) == SQLITE_ROW) {
            sqlite3_int64 id = sqlite3_column_int64(self->outbox, 0), at = sqlite3_column_int64(self->outbox, 3);
            entgldb_bytes name, lent;
            table *t;
            name.data = sqlite3_column_text(self->outbox, 1);
            name.len = (size_t)sqlite3_column_bytes(self->outbox, 1);
            t = find(self, name);
            if (id > self->seen) self->seen = id;
            if (!t || !noted_key(self, t, sqlite3_column_value(self->outbox, 2), &key)) continue;
            lent.data = (const uint8_t *)key.data;
            lent.len = key.len;
            if (entgldb_reply_change(reply, (uint64_t)id, name, lent, at > 0 ? (uint64_t)at : 0) != ENTGLDB_OK) code = SQLITE_ERROR;
        }
        if (code == SQLITE_OK) {
            code = sqlite3_reset(self->outbox);
        } else {
            sqlite3_reset(self->outbox);
        }
    }
    text_free(&key);
    return answer(self, code, reply);
}

static void hook_destroy(void *ctx) { entgldb_sqlite_close(ctx); }

/* ---- opening -------------------------------------------------------------------------------------------------------- */

static int prepare_database(entgldb_sqlite *self, const char *const *tables, size_t count, text *why) {
    static const char schema[] =
        "CREATE TABLE IF NOT EXISTS _entgldb_host_outbox("
        "  id INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT NOT NULL, key, at INTEGER NOT NULL);"
        "CREATE TABLE IF NOT EXISTS _entgldb_host_extra("
        "  tbl TEXT NOT NULL, key TEXT NOT NULL, sent TEXT NOT NULL, made TEXT NOT NULL, PRIMARY KEY (tbl, key)) WITHOUT ROWID;";
    sqlite3_stmt *check = NULL;
    size_t i;
    int code = sqlite3_exec(self->db, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF;", NULL,
                            NULL, NULL);
    if (code == SQLITE_OK) code = sqlite3_prepare_v2(self->db, "SELECT 1 FROM sqlite_master WHERE name = '_entgldb_outbox'", -1, &check, NULL);
    if (code == SQLITE_OK && sqlite3_step(check) == SQLITE_ROW) {
        text_str(why, "this database is synced by EntglDb's own SQLite store: one or the other");
        code = SQLITE_ERROR;
    }
    sqlite3_finalize(check);
    if (code == SQLITE_OK) code = sqlite3_exec(self->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    if (code == SQLITE_OK) code = sqlite3_exec(self->db, schema, NULL, NULL, NULL);
    for (i = 0; i < count && code == SQLITE_OK; i++) {
        code = load_table(self, &self->tables[i], tables[i], why);
        self->count = i + 1;
        if (code == SQLITE_OK) code = make_triggers(self, &self->tables[i]);
    }
    if (code == SQLITE_OK) code = sqlite3_exec(self->db, "COMMIT", NULL, NULL, NULL);
    if (code != SQLITE_OK) return code;
    code = sqlite3_create_function_v2(self->db, "_entgldb_key", -1, SQLITE_UTF8 | SQLITE_DETERMINISTIC, self, key_function, NULL,
                                      NULL, NULL);
    /* What this connection writes comes from other nodes: it is no news, and its consequences travel by themselves. */
    if (code == SQLITE_OK) code = sqlite3_db_config(self->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    /* So that REPLACE tells of what it removes. */
    if (code == SQLITE_OK) code = sqlite3_exec(self->db, "PRAGMA recursive_triggers = ON", NULL, NULL, NULL);
    return code;
}

int entgldb_sqlite_open(const char *path, const char *const *tables, size_t count, entgldb_sqlite **out, char *error,
                        size_t cap) {
    entgldb_sqlite *self = calloc(1, sizeof *self);
    text why = {0};
    int code = SQLITE_NOMEM;
    *out = NULL;
    if (self) self->tables = calloc(count ? count : 1, sizeof(table));
    if (self && self->tables) {
        code = sqlite3_open_v2(path, &self->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX, NULL);
        if (code == SQLITE_OK) sqlite3_busy_timeout(self->db, BUSY_MS);
        if (code == SQLITE_OK) code = prepare_database(self, tables, count, &why);
    }
    if (code == SQLITE_OK) {
        *out = self;
    } else {
        const char *text = why.len ? why.data : self && self->db ? sqlite3_errmsg(self->db) : "out of memory";
        if (cap) snprintf(error, cap, "%s: %s", path, text);
        entgldb_sqlite_close(self);
    }
    text_free(&why);
    return code;
}

void entgldb_sqlite_on_apply(entgldb_sqlite *adapter, entgldb_sqlite_applied applied, void *ctx) {
    adapter->applied = applied;
    adapter->applied_ctx = ctx;
}

void entgldb_sqlite_store(entgldb_sqlite *adapter, entgldb_store *out) {
    memset(out, 0, sizeof *out);
    out->struct_size = sizeof *out;
    out->ctx = adapter;
    out->apply = hook_apply;
    out->read = hook_read;
    out->remove = hook_remove;
    out->enumerate = hook_enumerate;
    out->begin = hook_begin;
    out->commit = hook_commit;
    out->rollback = hook_rollback;
    out->outbox = hook_outbox;
    out->destroy = hook_destroy;
}

/* After each commit of the application. A node that is gone answers an error, which is nobody's concern here. */
static int committed(void *ctx, sqlite3 *db, const char *name, int pages) {
    if (pages >= CHECKPOINT_PAGES) sqlite3_wal_checkpoint_v2(db, name, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    entgldb_touch(ctx, NULL, 0);
    return SQLITE_OK;
}

int entgldb_sqlite_attach(sqlite3 *db, entgldb_node *node) {
    int code = sqlite3_exec(db, "PRAGMA recursive_triggers = ON", NULL, NULL, NULL);
    sqlite3_wal_hook(db, committed, node);
    return code;
}

void entgldb_sqlite_close(entgldb_sqlite *adapter) {
    size_t i;
    int c;
    if (!adapter) return;
    for (i = 0; i < adapter->count; i++) {
        table *t = &adapter->tables[i];
        sqlite3_finalize(t->select);
        sqlite3_finalize(t->upsert);
        sqlite3_finalize(t->erase);
        sqlite3_finalize(t->page);
        sqlite3_finalize(t->extra_get);
        sqlite3_finalize(t->extra_put);
        sqlite3_finalize(t->extra_erase);
        for (c = 0; c < t->count; c++) {
            free(t->columns[c].name);
            free(t->columns[c].fallback);
        }
        free(t->columns);
        free(t->name);
    }
    sqlite3_finalize(adapter->begin);
    sqlite3_finalize(adapter->commit);
    sqlite3_finalize(adapter->rollback);
    sqlite3_finalize(adapter->outbox);
    sqlite3_finalize(adapter->outbox_erase);
    sqlite3_finalize(adapter->outbox_last);
    free(adapter->tables);
    text_free(&adapter->last_key);
    text_free(&adapter->error);
    sqlite3_close_v2(adapter->db);
    free(adapter);
}
