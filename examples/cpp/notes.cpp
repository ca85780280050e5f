// Two notebooks in memory, each beside a node, in one process: a store of one's own in C++, from beginning to end.
//
//     c++ -std=c++17 notes.cpp $(pkg-config --cflags --libs entgldb) -o notes && ./notes FOLDER
//
// A store has four hooks: apply, read, remove and enumerate. The notebook tells its node of its own writes with `record`. Between a
// write and its `record` no hook may write the same note, so both are done under one lock, which the hooks take too.
#include <entgldb.hpp>

#include <iostream>
#include <map>
#include <mutex>

namespace {

using namespace std::chrono_literals;

class Notebook : public entgldb::Store {
public:
    // What the other notebooks wrote. Throwing would be answered with a retry, and in the end with quarantine.
    void apply(entgldb::Documents documents, entgldb::Reply &) override {
        const std::lock_guard<std::mutex> guard(lock_);
        for (const auto document : documents) notes_[std::string(document.key())] = document.content();
    }

    void remove(entgldb::Documents keys, entgldb::Reply &) override {
        const std::lock_guard<std::mutex> guard(lock_);
        for (const auto key : keys) notes_.erase(std::string(key.key()));
    }

    void read(entgldb::Documents keys, entgldb::Reply &reply) override {
        const std::lock_guard<std::mutex> guard(lock_);
        for (const auto key : keys) {
            const auto found = notes_.find(std::string(key.key()));
            found == notes_.end() ? reply.missing() : reply.document(found->second);
        }
    }

    // std::map is in the order of the keys' bytes, as enumerate has to be.
    void enumerate(std::string_view, std::string_view after, std::size_t limit, entgldb::Reply &reply) override {
        const std::lock_guard<std::mutex> guard(lock_);
        for (auto note = notes_.upper_bound(std::string(after)); note != notes_.end() && limit > 0; ++note, --limit) {
            reply.entry(note->first, note->second);
        }
    }

    // What the person in front of it does.
    void write(const entgldb::Node &node, const std::string &key, const std::string &content) {
        const std::lock_guard<std::mutex> guard(lock_);
        notes_[key] = content;
        node.record(entgldb::Changes().put("notes", key, content));
    }

    void print(const char *title) {
        const std::lock_guard<std::mutex> guard(lock_);
        std::cout << title << '\n';
        for (const auto &[key, content] : notes_) std::cout << "  " << key << ": " << content << '\n';
    }

    bool has(const std::string &key) {
        const std::lock_guard<std::mutex> guard(lock_);
        return notes_.count(key) > 0;
    }

private:
    std::mutex lock_;
    std::map<std::string, std::string> notes_;
};

entgldb::Config config(const std::string &folder, const std::string &name) {
    entgldb::Config out(folder + "/" + name + ".entgldb", folder + "/cluster.secret");
    out.name = name;
    out.watch = {"notes"};
    return out;
}

int run(const std::string &folder) {
    entgldb::keygen(folder + "/cluster.secret");
    const auto ada = std::make_shared<Notebook>();
    const auto grace = std::make_shared<Notebook>();

    auto listening = config(folder, "ada");
    listening.listen = "127.0.0.1:0";
    entgldb::Node first(listening, ada);
    // Where the system has let it listen; a real one has a port of its own.
    const std::string status = first.status();
    const auto at = status.find("\"listen\":\"") + 10;
    auto dialling = config(folder, "grace");
    dialling.peers = {status.substr(at, status.find('"', at) - at)};
    entgldb::Node second(dialling, grace);
    second.on_event([](const entgldb::Event &event) { std::cerr << "grace: " << event.json << '\n'; });

    ada->write(first, "monday", R"({"text":"plan the analytical engine"})");
    grace->write(second, "tuesday", R"({"text":"find the moth"})");
    if (!second.sync_now(20s, dialling.peers[0])) return 1;
    ada->print("Ada's notes");
    grace->print("Grace's notes");
    const bool both = ada->has("tuesday") && grace->has("monday");
    return both && first.close(10s) && second.close(10s) ? 0 : 1;
}

}  // namespace

int main(int count, char **arguments) {
    if (count != 2) {
        std::cerr << "usage: notes FOLDER\n";
        return 2;
    }
    try {
        return run(arguments[1]);
    } catch (const std::exception &error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}
