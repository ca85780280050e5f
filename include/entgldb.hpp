// EntglDb for C++17: entgldb.h with ownership, exceptions and types. Header only; link with the same library.
//
//     #include <entgldb.hpp>
//
//     int main() {
//         entgldb::Config config("notes.entgldb", "cluster.secret");
//         config.watch = {"notes"};
//         config.peers = {"office.local:7700"};
//         entgldb::Node node(config);
//         node.put("notes", "1", R"({"text":"hello"})");
//         node.sync_now(std::chrono::seconds(5));
//     }
//
// What fails throws `entgldb::Error`. A node may be used from several threads. The application's own store derives from
// `entgldb::Store`; exceptions that leave its hooks become errors of the hook, with their text.
#ifndef ENTGLDB_HPP
#define ENTGLDB_HPP

#include "entgldb.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace entgldb {

using Milliseconds = std::chrono::milliseconds;

/// A function of the library failed; `what()` is the text for people.
class Error : public std::runtime_error {
public:
    Error(entgldb_status status, const std::string &message) : std::runtime_error(message), status_(status) {}
    /// One of the `ENTGLDB_ERROR_...` constants.
    entgldb_status status() const noexcept { return status_; }

private:
    entgldb_status status_;
};

/// To be thrown by a hook whose store cannot be used at all now: nothing is set aside, the engine waits and comes again.
class Unavailable : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

namespace detail {

inline entgldb_bytes lend(std::string_view text) noexcept {
    return entgldb_bytes{reinterpret_cast<const std::uint8_t *>(text.data()), text.size()};
}

inline std::string_view view(entgldb_bytes bytes) noexcept {
    return bytes.len == 0 ? std::string_view() : std::string_view(reinterpret_cast<const char *>(bytes.data), bytes.len);
}

inline std::string last_error() {
    std::string text(entgldb_last_error(nullptr, 0) + 1, '\0');
    text.resize(std::min(entgldb_last_error(text.data(), text.size()), text.size() - 1));
    return text;
}

inline void check(entgldb_status status) {
    if (status < 0) throw Error(status, last_error());
}

inline std::string take(entgldb_buffer &buffer) {
    std::string text;
    try {
        text.assign(reinterpret_cast<const char *>(buffer.data), buffer.len);
    } catch (...) {
        entgldb_buffer_free(&buffer);
        throw;
    }
    entgldb_buffer_free(&buffer);
    return text;
}

inline std::uint32_t whole(Milliseconds timeout) noexcept {
    const auto count = timeout.count();
    if (count <= 0) return 0;
    const auto most = std::numeric_limits<std::uint32_t>::max();
    return static_cast<std::uint64_t>(count) > most ? most : static_cast<std::uint32_t>(count);
}

/// A small writer of JSON objects: what configurations and commands need.
class Json {
public:
    Json &text(std::string_view name, std::string_view value) { return member(name).append_quoted(value); }
    Json &number(std::string_view name, std::uint64_t value) { return member(name).append(std::to_string(value)); }
    Json &boolean(std::string_view name, bool value) { return member(name).append(value ? "true" : "false"); }
    Json &raw(std::string_view name, std::string_view json) { return member(name).append(json); }
    Json &list(std::string_view name, const std::vector<std::string> &values) {
        member(name).append("[");
        const char *separator = "";
        for (const auto &value : values) {
            append(separator).append_quoted(value);
            separator = ",";
        }
        return append("]");
    }
    std::string done() const { return out_ + "}"; }

private:
    std::string out_ = "{";

    Json &member(std::string_view name) {
        if (out_.size() > 1) out_ += ',';
        return append_quoted(name).append(":");
    }
    Json &append(std::string_view json) {
        out_ += json;
        return *this;
    }
    Json &append_quoted(std::string_view value) {
        out_ += '"';
        for (const char each : value) {
            const auto byte = static_cast<unsigned char>(each);
            if (byte == '"' || byte == '\\') {
                out_ += '\\';
                out_ += each;
            } else if (byte < 0x20) {
                char escaped[8];
                std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(byte));
                out_ += escaped;
            } else {
                out_ += each;
            }
        }
        out_ += '"';
        return *this;
    }
};

}  // namespace detail

/// A document as a hook sees it: valid until the hook has ended.
class Document {
public:
    explicit Document(const entgldb_doc &doc) noexcept : doc_(&doc) {}
    std::string_view collection() const noexcept { return detail::view(doc_->collection); }
    std::string_view key() const noexcept { return detail::view(doc_->key); }
    /// JSON; empty where only keys are passed, and for a deleted version.
    std::string_view content() const noexcept { return detail::view(doc_->content); }
    /// Only in `resolve`.
    bool deleted() const noexcept { return doc_->content.data == nullptr; }
    std::uint64_t hlc() const noexcept { return doc_->hlc; }

private:
    const entgldb_doc *doc_;
};

/// The documents of one call, as a range.
class Documents {
public:
    class Iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using value_type = Document;
        using difference_type = std::ptrdiff_t;
        using pointer = void;
        using reference = Document;
        explicit Iterator(const entgldb_doc *at) noexcept : at_(at) {}
        Document operator*() const noexcept { return Document(*at_); }
        Iterator &operator++() noexcept {
            ++at_;
            return *this;
        }
        bool operator==(const Iterator &other) const noexcept { return at_ == other.at_; }
        bool operator!=(const Iterator &other) const noexcept { return at_ != other.at_; }

    private:
        const entgldb_doc *at_;
    };

    Documents(const entgldb_doc *first, std::size_t count) noexcept : first_(first), count_(count) {}
    std::size_t size() const noexcept { return count_; }
    bool empty() const noexcept { return count_ == 0; }
    Document operator[](std::size_t index) const noexcept { return Document(first_[index]); }
    Iterator begin() const noexcept { return Iterator(first_); }
    Iterator end() const noexcept { return Iterator(first_ + count_); }

private:
    const entgldb_doc *first_;
    std::size_t count_;
};

/// What a hook answers with; see `entgldb_reply_doc` and the functions after it.
class Reply {
public:
    explicit Reply(entgldb_reply *raw) noexcept : raw_(raw) {}
    /// In `read`: the next document.
    void document(std::string_view content) { detail::check(entgldb_reply_doc(raw_, detail::lend(content))); }
    /// In `read`: the next document is not there.
    void missing() { detail::check(entgldb_reply_missing(raw_)); }
    /// In `enumerate`: the next document; without content it is read.
    void entry(std::string_view key, std::optional<std::string_view> content = std::nullopt) {
        // An empty content is one, and its pointer must not be NULL.
        const entgldb_bytes lent = content ? detail::lend(content->data() ? *content : std::string_view("")) : entgldb_bytes{};
        detail::check(entgldb_reply_entry(raw_, detail::lend(key), lent));
    }
    /// In `outbox`: the next noted write.
    void change(std::uint64_t id, std::string_view collection, std::string_view key, std::uint64_t written_ms) {
        detail::check(entgldb_reply_change(raw_, id, detail::lend(collection), detail::lend(key), written_ms));
    }
    /// In `apply`, before it throws: a document that stands in the way, as under a UNIQUE constraint.
    void blocked(std::string_view collection, std::string_view key) {
        detail::check(entgldb_reply_blocked(raw_, detail::lend(collection), detail::lend(key)));
    }
    /// The hook will end later: what it returns now does not count, and the result answers in its place.
    class Pending defer();

protected:
    entgldb_reply *raw_;
    bool deferred_ = false;
    friend class Store;
};

/// A hook that ends later, from any thread. One that is dropped unfinished has failed.
class Pending : public Reply {
public:
    explicit Pending(entgldb_reply *raw) noexcept : Reply(raw) {}
    Pending(Pending &&other) noexcept : Reply(std::exchange(other.raw_, nullptr)) {}
    Pending &operator=(Pending &&other) noexcept {
        std::swap(raw_, other.raw_);
        return *this;
    }
    ~Pending() {
        if (raw_ != nullptr) end(ENTGLDB_ERROR_HOOK, "the pending hook was dropped");
    }
    /// It is done. False if the engine had given up waiting.
    bool finish() noexcept { return entgldb_reply_finish(std::exchange(raw_, nullptr), ENTGLDB_OK) == ENTGLDB_OK; }
    /// It has failed.
    void fail(std::string_view message) noexcept { end(ENTGLDB_ERROR_HOOK, message); }

private:
    void end(entgldb_status status, std::string_view message) noexcept {
        entgldb_reply *raw = std::exchange(raw_, nullptr);
        entgldb_reply_error(raw, detail::lend(message));
        entgldb_reply_finish(raw, status);
    }
};

inline Pending Reply::defer() {
    deferred_ = true;
    return Pending(raw_);
}

/// The application's own store: derive from it. Hooks are called from one thread of the engine, one at a time; what each must do
/// is said at `entgldb_store`. It is destroyed once, after the last hook, when nobody else holds the pointer.
class Store {
public:
    virtual ~Store() = default;
    virtual void apply(Documents documents, Reply &reply) = 0;
    virtual void read(Documents keys, Reply &reply) = 0;
    virtual void remove(Documents keys, Reply &reply) = 0;
    virtual void enumerate(std::string_view collection, std::string_view after, std::size_t limit, Reply &reply) = 0;

    /// Whether `begin`, `commit` and `rollback` do something.
    virtual bool has_transactions() const { return false; }
    virtual void begin() {}
    /// False if the outbox has moved; nothing was committed then.
    virtual bool commit() { return true; }
    virtual void rollback() {}
    /// Whether `outbox` does something.
    virtual bool has_outbox() const { return false; }
    virtual void outbox(std::uint64_t /*after*/, std::size_t /*limit*/, Reply & /*reply*/) {}
    /// Whether `resolve` does something.
    virtual bool has_resolve() const { return false; }
    /// The content that stands, or none if the document is deleted.
    virtual std::optional<std::string> resolve(std::string_view /*collection*/, std::string_view /*key*/, Documents heads) {
        const Document last = heads[heads.size() - 1];
        return last.deleted() ? std::nullopt : std::optional<std::string>(last.content());
    }

    /// For `entgldb_open`: hooks that keep the store alive until they are done with.
    static entgldb_store hooks(std::shared_ptr<Store> store) {
        entgldb_store out{};
        out.struct_size = sizeof out;
        out.apply = [](void *ctx, const entgldb_doc *docs, std::size_t n, entgldb_reply *reply) {
            return run(reply, [&](Reply &to) { of(ctx).apply(Documents(docs, n), to); });
        };
        out.read = [](void *ctx, const entgldb_doc *keys, std::size_t n, entgldb_reply *reply) {
            return run(reply, [&](Reply &to) { of(ctx).read(Documents(keys, n), to); });
        };
        out.remove = [](void *ctx, const entgldb_doc *keys, std::size_t n, entgldb_reply *reply) {
            return run(reply, [&](Reply &to) { of(ctx).remove(Documents(keys, n), to); });
        };
        out.enumerate = [](void *ctx, entgldb_bytes collection, entgldb_bytes after, std::uint32_t limit, entgldb_reply *reply) {
            return run(reply, [&](Reply &to) { of(ctx).enumerate(detail::view(collection), detail::view(after), limit, to); });
        };
        if (store->has_transactions()) {
            out.begin = [](void *ctx) { return run([&] { of(ctx).begin(); return ENTGLDB_OK; }); };
            out.commit = [](void *ctx) { return run([&] { return of(ctx).commit() ? ENTGLDB_OK : ENTGLDB_OUTBOX_MOVED; }); };
            out.rollback = [](void *ctx) { return run([&] { of(ctx).rollback(); return ENTGLDB_OK; }); };
        }
        if (store->has_outbox()) {
            out.outbox = [](void *ctx, std::uint64_t after, std::uint32_t limit, entgldb_reply *reply) {
                return run(reply, [&](Reply &to) { of(ctx).outbox(after, limit, to); });
            };
        }
        if (store->has_resolve()) {
            out.resolve = [](void *ctx, entgldb_bytes collection, entgldb_bytes key, const entgldb_doc *heads, std::size_t n,
                             entgldb_reply *reply) {
                return run(reply, [&](Reply &to) {
                    const auto answer = of(ctx).resolve(detail::view(collection), detail::view(key), Documents(heads, n));
                    answer ? to.document(*answer) : to.missing();
                });
            };
        }
        out.destroy = [](void *ctx) { delete static_cast<std::shared_ptr<Store> *>(ctx); };
        out.ctx = new std::shared_ptr<Store>(std::move(store));
        return out;
    }

private:
    static Store &of(void *ctx) noexcept { return **static_cast<std::shared_ptr<Store> *>(ctx); }

    /// No exception may pass the library's frames.
    template <class Work>
    static entgldb_status run(Work work) noexcept {
        try {
            return work();
        } catch (const Unavailable &) {
            return ENTGLDB_ERROR_STORE;
        } catch (...) {
            return ENTGLDB_ERROR_HOOK;
        }
    }

    template <class Work>
    static entgldb_status run(entgldb_reply *raw, Work work) noexcept {
        Reply reply(raw);
        entgldb_status status = ENTGLDB_ERROR_HOOK;
        const char *message = "something that is no std::exception was thrown";
        std::string kept;
        try {
            work(reply);
            return reply.deferred_ ? ENTGLDB_PENDING : ENTGLDB_OK;
        } catch (const Unavailable &error) {
            status = ENTGLDB_ERROR_STORE;
            message = keep(kept, error);
        } catch (const std::exception &error) {
            message = keep(kept, error);
        } catch (...) {
        }
        if (reply.deferred_) return ENTGLDB_PENDING;  // whoever holds the `Pending` ends it
        entgldb_reply_error(raw, entgldb_str(message));
        return status;
    }

    static const char *keep(std::string &kept, const std::exception &error) noexcept {
        try {
            kept = error.what();
            return kept.c_str();
        } catch (...) {
            return "out of memory";
        }
    }
};

/// A node's configuration; docs/schema/config.json says what each field means. What is not set has its default.
struct Config {
    Config(std::string database_file, std::string secret) : database(std::move(database_file)), secret_file(std::move(secret)) {}

    /// The engine's own file: never the application's database.
    std::string database;
    std::string secret_file;
    /// The collections.
    std::vector<std::string> watch;
    std::vector<std::string> merge;
    /// Those that `Store::resolve` decides on.
    std::vector<std::string> custom_hook;
    std::optional<std::string> listen;
    std::vector<std::string> peers;
    std::optional<std::string> data_dir;
    std::optional<std::string> name;
    /// "full" or "normal".
    std::optional<std::string> durability;
    /// Hours; 0 keeps history forever.
    std::optional<std::uint64_t> retention_hours;
    std::optional<std::vector<std::string>> allow;
    std::optional<std::uint64_t> sync_interval_ms;
    std::optional<std::uint64_t> max_skew_ms;
    std::optional<std::uint64_t> payload_bytes_max;
    std::optional<std::uint64_t> frame_bytes_max;
    std::optional<std::uint64_t> peer_bytes_per_second;
    std::optional<std::uint64_t> hook_timeout_ms;
    std::optional<bool> zstd;

    std::string to_json() const {
        detail::Json json;
        json.text("database", database).text("secret_file", secret_file).list("watch", watch).list("merge", merge);
        json.list("custom_hook", custom_hook).list("peers", peers);
        if (listen) json.text("listen", *listen);
        if (data_dir) json.text("data_dir", *data_dir);
        if (name) json.text("name", *name);
        if (durability) json.text("durability", *durability);
        if (retention_hours && *retention_hours == 0) json.text("retention_hours", "forever");
        if (retention_hours && *retention_hours != 0) json.number("retention_hours", *retention_hours);
        if (allow) json.list("allow", *allow);
        if (sync_interval_ms) json.number("sync_interval_ms", *sync_interval_ms);
        if (max_skew_ms) json.number("max_skew_ms", *max_skew_ms);
        if (payload_bytes_max) json.number("payload_bytes_max", *payload_bytes_max);
        if (frame_bytes_max) json.number("frame_bytes_max", *frame_bytes_max);
        if (peer_bytes_per_second) json.number("peer_bytes_per_second", *peer_bytes_per_second);
        if (hook_timeout_ms) json.number("hook_timeout_ms", *hook_timeout_ms);
        if (zstd) json.boolean("zstd", *zstd);
        return json.done();
    }
};

/// Changes that the application has made, to be recorded as one unit. Keeps copies.
class Changes {
public:
    Changes &put(std::string collection, std::string key, std::string content) {
        items_.push_back({std::move(collection), std::move(key), std::move(content), false});
        return *this;
    }
    Changes &remove(std::string collection, std::string key) {
        items_.push_back({std::move(collection), std::move(key), {}, true});
        return *this;
    }

private:
    struct Item {
        std::string collection, key, content;
        bool deleted;
    };
    std::vector<Item> items_;
    friend class Node;
};

/// Something that happened.
class Event {
public:
    explicit Event(std::string text) : json(std::move(text)) {}
    /// docs/schema/event.json.
    std::string json;
    /// Which event it is, such as "peer_up".
    std::string name() const {
        constexpr std::string_view tag = "\"event\":\"";
        const auto at = json.find(tag);
        if (at == std::string::npos) return {};
        const auto from = at + tag.size();
        return json.substr(from, json.find('"', from) - from);
    }
};

/// A running node. Closed and freed with the object; the threads that use it must be done by then.
class Node {
public:
    explicit Node(const Config &config, std::shared_ptr<Store> store = nullptr) : Node(config.to_json(), std::move(store)) {}
    /// With a configuration in JSON.
    explicit Node(std::string_view config_json, std::shared_ptr<Store> store = nullptr) {
        if (store == nullptr) {
            detail::check(entgldb_open(detail::lend(config_json), nullptr, &raw_));
        } else {
            const entgldb_store hooks = Store::hooks(std::move(store));
            detail::check(entgldb_open(detail::lend(config_json), &hooks, &raw_));
        }
    }
    Node(Node &&other) noexcept : raw_(std::exchange(other.raw_, nullptr)), reader_(std::move(other.reader_)) {}
    Node &operator=(Node &&other) noexcept {
        std::swap(raw_, other.raw_);
        std::swap(reader_, other.reader_);
        return *this;
    }
    ~Node() {
        entgldb_free(raw_);
        if (reader_.joinable()) reader_.join();
    }

    /// For what this class has no method for.
    entgldb_node *raw() const noexcept { return raw_; }

    /// Tells of changes with their content, as one unit. Durable on return.
    void record(const Changes &changes) const {
        std::vector<entgldb_doc> docs;
        std::vector<std::uint8_t> deleted;
        for (const auto &item : changes.items_) {
            entgldb_doc doc{};
            doc.collection = detail::lend(item.collection);
            doc.key = detail::lend(item.key);
            doc.content = detail::lend(item.content);
            docs.push_back(doc);
            deleted.push_back(item.deleted ? 1 : 0);
        }
        detail::check(entgldb_record(raw_, docs.data(), deleted.data(), docs.size()));
    }

    /// Tells that a document was written; the engine reads it. May be called from inside a hook.
    void touch(std::string_view collection, std::string_view key) const {
        entgldb_doc doc{};
        doc.collection = detail::lend(collection);
        doc.key = detail::lend(key);
        detail::check(entgldb_touch(raw_, &doc, 1));
    }
    /// Makes the engine look into the outbox.
    void touch() const { detail::check(entgldb_touch(raw_, nullptr, 0)); }

    /// Waits until all linked peers and this node hold the same; false if that takes longer.
    bool sync_now(Milliseconds timeout, std::string_view peer = {}) const {
        const entgldb_status status = entgldb_sync_now(raw_, detail::lend(peer), detail::whole(timeout));
        if (status == ENTGLDB_ERROR_TIMEOUT) return false;
        detail::check(status);
        return true;
    }

    /// Health, as JSON.
    std::string status() const {
        entgldb_buffer out{};
        detail::check(entgldb_status_json(raw_, &out));
        return detail::take(out);
    }

    /// A command and its answer, both JSON.
    std::string command(std::string_view request) const {
        entgldb_buffer out{};
        detail::check(entgldb_command(raw_, detail::lend(request), &out));
        return detail::take(out);
    }

    /// Without a store: writes a document. `content` is JSON.
    void put(std::string_view collection, std::string_view key, std::string_view content) const {
        record(Changes().put(std::string(collection), std::string(key), std::string(content)));
    }
    /// Without a store: deletes a document.
    void remove(std::string_view collection, std::string_view key) const {
        record(Changes().remove(std::string(collection), std::string(key)));
    }

    /// The next event; none if nothing happens in that time, or the node has ended.
    std::optional<Event> next_event(Milliseconds timeout) const {
        entgldb_buffer out{};
        const entgldb_status status = entgldb_next_event(raw_, detail::whole(timeout), &out);
        if (status == ENTGLDB_ERROR_TIMEOUT || status == ENTGLDB_ERROR_CLOSED) return std::nullopt;
        detail::check(status);
        return Event(detail::take(out));
    }

    /// All events until the node has ended, for a loop in a thread of its own: `for (const auto &event : node.events())`.
    class Events {
    public:
        class Iterator {
        public:
            using iterator_category = std::input_iterator_tag;
            using value_type = Event;
            using difference_type = std::ptrdiff_t;
            using pointer = const Event *;
            using reference = const Event &;
            Iterator() = default;
            explicit Iterator(entgldb_node *node) : node_(node) { ++*this; }
            reference operator*() const { return *event_; }
            pointer operator->() const { return &*event_; }
            Iterator &operator++() {
                entgldb_buffer out{};
                entgldb_status status = ENTGLDB_ERROR_TIMEOUT;
                while (status == ENTGLDB_ERROR_TIMEOUT) status = entgldb_next_event(node_, 60000, &out);
                event_ = status == ENTGLDB_OK ? std::optional<Event>(detail::take(out)) : std::nullopt;
                return *this;
            }
            bool operator==(const Iterator &other) const noexcept { return event_.has_value() == other.event_.has_value(); }
            bool operator!=(const Iterator &other) const noexcept { return !(*this == other); }

        private:
            entgldb_node *node_ = nullptr;
            std::optional<Event> event_;
        };

        explicit Events(entgldb_node *node) noexcept : node_(node) {}
        Iterator begin() const { return Iterator(node_); }
        Iterator end() const { return Iterator(); }

    private:
        entgldb_node *node_;
    };
    Events events() const noexcept { return Events(raw_); }

    /// Calls `handler` with every event, on a thread of its own that ends with the node. Once for each node; an exception that
    /// leaves `handler` ends the program.
    void on_event(std::function<void(const Event &)> handler) {
        if (reader_.joinable()) throw std::logic_error("on_event was called before");
        reader_ = std::thread([range = events(), handler = std::move(handler)] {
            for (const auto &event : range) handler(event);
        });
    }

    /// Ends the node; false if a hook is still in flight after that time.
    bool close(Milliseconds timeout) const {
        const entgldb_status status = entgldb_close(raw_, detail::whole(timeout));
        if (status == ENTGLDB_ERROR_TIMEOUT) return false;
        detail::check(status);
        return true;
    }

private:
    entgldb_node *raw_ = nullptr;
    std::thread reader_;
};

/// A new cluster secret in a new file.
inline void keygen(std::string_view path) { detail::check(entgldb_keygen(detail::lend(path))); }

}  // namespace entgldb

#endif  // ENTGLDB_HPP
