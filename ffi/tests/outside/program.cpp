// The same in C++.
#include <entgldb.hpp>

#include <iostream>

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    try {
        const std::string folder = argv[1];
        entgldb::keygen(folder + "/secret");
        entgldb::Config config(folder + "/notes.entgldb", folder + "/secret");
        config.watch = {"notes"};
        entgldb::Node node(config);
        node.put("notes", "1", R"({"text":"hello"})");
        std::cout << node.command(R"({"command":"get","collection":"notes","key":"1"})") << '\n';
        return node.close(std::chrono::seconds(5)) ? 0 : 1;
    } catch (const entgldb::Error &error) {
        std::cerr << error.what() << '\n';
        return 1;
    }
}
