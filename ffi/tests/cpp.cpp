// The C++ header: ownership, a store with virtual hooks, exceptions that become errors, pending hooks, events.
#include <entgldb.hpp>

#include "check.h"

#include <atomic>
#include <map>
#include <mutex>

namespace {

using namespace std::chrono_literals;

class MemoryStore : public entgldb::Store {
public:
    explicit MemoryStore(std::atomic<int> &destroyed) : destroyed_(destroyed) {}
    ~MemoryStore() override { ++destroyed_; }

    void apply(entgldb::Documents documents, entgldb::Reply &reply) override {
        if (throws == 1) throw std::runtime_error("the store has thrown");
        if (throws == 2) throw 7;
        if (throws == 3) throw entgldb::Unavailable("gone fishing");
        if (throws == 4) {
            reply.blocked("notes", "1");
            throw std::runtime_error("another one is in the way");
        }
        std::lock_guard<std::mutex> guard(lock_);
        for (const auto document : documents) rows_[std::string(document.key())] = document.content();
        if (later) std::thread([pending = reply.defer()]() mutable { pending.finish(); }).detach();
    }
    void read(entgldb::Documents keys, entgldb::Reply &reply) override {
        std::lock_guard<std::mutex> guard(lock_);
        for (const auto key : keys) {
            const auto found = rows_.find(std::string(key.key()));
            found == rows_.end() ? reply.missing() : reply.document(found->second);
        }
    }
    void remove(entgldb::Documents keys, entgldb::Reply &) override {
        std::lock_guard<std::mutex> guard(lock_);
        for (const auto key : keys) rows_.erase(std::string(key.key()));
    }
    void enumerate(std::string_view, std::string_view after, std::size_t limit, entgldb::Reply &reply) override {
        std::lock_guard<std::mutex> guard(lock_);
        for (auto row = rows_.upper_bound(std::string(after)); row != rows_.end() && limit > 0; ++row, --limit) {
            reply.entry(row->first, row->second);
        }
    }

    bool has_resolve() const override { return true; }
    std::optional<std::string> resolve(std::string_view, std::string_view, entgldb::Documents heads) override {
        std::size_t bytes = 0;
        for (const auto head : heads) bytes += head.content().size();
        return "{\"bytes\":" + std::to_string(bytes) + ",\"heads\":" + std::to_string(heads.size()) + "}";
    }

    std::optional<std::string> get(const std::string &key) {
        std::lock_guard<std::mutex> guard(lock_);
        const auto found = rows_.find(key);
        return found == rows_.end() ? std::nullopt : std::optional<std::string>(found->second);
    }

    std::atomic<int> throws{0};
    std::atomic<bool> later{false};

private:
    std::mutex lock_;
    std::map<std::string, std::string> rows_;
    std::atomic<int> &destroyed_;
};

entgldb::Config config(const std::string &name) {
    entgldb::Config out(std::string(check_folder) + "/" + name + ".entgldb", std::string(check_folder) + "/secret");
    out.watch = {"notes"};
    out.listen = "127.0.0.1:0";
    out.sync_interval_ms = 100;
    out.durability = "normal";
    out.name = "a \"quoted\" \\ name";
    return out;
}

std::string address(const entgldb::Node &node) {
    char out[100];
    address_of(node.raw(), out, sizeof out);
    return out;
}

void what_fails_throws_with_a_text() {
    auto wrong = config("wrong");
    wrong.peers = {"nowhere"};
    try {
        entgldb::Node node(wrong);
        CHECK(false);
    } catch (const entgldb::Error &error) {
        CHECK(error.status() == ENTGLDB_ERROR_CONFIG);
        CHECK(std::string(error.what()).find("nowhere") != std::string::npos);
    }
}

void documents_without_a_store() {
    entgldb::Node node(config("documents"));
    node.put("notes", "1", R"({"text":"hello"})");
    CHECK(node.command(R"({"command":"get","collection":"notes","key":"1"})").find("hello") != std::string::npos);
    node.record(entgldb::Changes().put("notes", "2", "{}").remove("notes", "1"));
    CHECK(node.command(R"({"command":"get","collection":"notes","key":"1"})").find("hello") == std::string::npos);
    CHECK(!node.sync_now(50ms));
    CHECK(node.close(10s));
}

// What was refused may have been set aside. While the store is unavailable there is nobody to retry.
bool retried(const entgldb::Node &node, const std::string &key) {
    try {
        node.command(R"({"command":"quarantine_retry","collection":"notes","key":")" + key + R"("})");
    } catch (const entgldb::Error &error) {
        CHECK(error.status() == ENTGLDB_ERROR_REFUSED);
    }
    return false;
}

void two_stores() {
    std::atomic<int> destroyed{0}, linked{0}, seen{0};
    {
        auto store = std::make_shared<MemoryStore>(destroyed);
        auto other = std::make_shared<MemoryStore>(destroyed);
        entgldb::Node a(config("a"), store);
        a.on_event([&](const entgldb::Event &event) { event.name() == "peer_up" ? ++linked : ++seen; });
        auto with_peer = config("b");
        with_peer.peers = {address(a)};
        entgldb::Node b(with_peer, other);
        CHECK(b.sync_now(20s, address(a)));
        a.record(entgldb::Changes().put("notes", "1", R"({"n":1})"));
        WAIT(other->get("1") == R"({"n":1})");

        for (int kind = 1; kind <= 4; ++kind) {
            other->throws = kind;
            const auto key = "thrown-" + std::to_string(kind);
            a.record(entgldb::Changes().put("notes", key, "{}"));
            pause_ms(150);
            other->throws = 0;
            WAIT(other->get(key) || retried(b, key));
        }
        other->later = true;
        a.record(entgldb::Changes().put("notes", "later", "{}").remove("notes", "1"));
        WAIT(other->get("later") && !other->get("1"));
        CHECK(a.sync_now(20s));
        WAIT(linked > 0 && seen > 0);
        CHECK(b.close(10s));
        CHECK(b.close(1s));
        CHECK(destroyed == 0);  // this function still holds it
        other.reset();
        CHECK(destroyed == 1);
        entgldb::Node moved = std::move(a);
        CHECK(moved.status().find("quoted") != std::string::npos);
    }
    CHECK(destroyed == 2);
}

void the_stores_decide_on_what_was_written_apart() {
    std::atomic<int> destroyed{0};
    auto one = std::make_shared<MemoryStore>(destroyed);
    auto other = std::make_shared<MemoryStore>(destroyed);
    auto deciding = config("decides-a");
    deciding.custom_hook = {"notes"};
    entgldb::Node a(deciding, one);
    deciding.database = std::string(check_folder) + "/decides-b.entgldb";
    deciding.name = "b";
    entgldb::Node b(deciding, other);
    a.record(entgldb::Changes().put("notes", "1", R"({"from":"a"})"));
    b.record(entgldb::Changes().put("notes", "1", R"({"from":"bb"})"));
    pause_ms(300);
    CHECK(b.sync_now(20s, address(a)));
    WAIT(one->get("1") == R"({"bytes":25,"heads":2})" && other->get("1") == R"({"bytes":25,"heads":2})");
}

}  // namespace

int main() {
    make_folder();
    what_fails_throws_with_a_text();
    documents_without_a_store();
    two_stores();
    the_stores_decide_on_what_was_written_apart();
    return 0;
}
