// libnvrtc.so of the emulator: the C++ compiler makes a shared object of a kernel, for libcuda.so.1 beside this file. The files
// of include/ take the place of those of the same name.
#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

namespace fs = std::filesystem;

struct Program {
  std::string text, name;
  std::vector<std::pair<std::string, std::string>> headers;  // path, text
  std::string image, log;
};

std::string read(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

void write(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

/// What a C++ compiler does not understand, and no macro can hide.
std::string translated(const std::string& text) {
  static const std::regex dynamic(R"(extern __shared__ (?:__align__\(\d+\) )?(\w+) (\w+)\[\];)");
  return std::regex_replace(text, dynamic, "$1* const $2 = static_cast<$1*>(emulator::dynamic_smem());");
}

/// DG_EMULATOR_EDIT, "from=>to": a text that stands once in the headers is changed, to see what the machine says of it.
bool edit(std::vector<std::pair<std::string, std::string>>& headers) {
  const char* variable = std::getenv("DG_EMULATOR_EDIT");
  if (!variable) return true;
  const std::string both = variable;
  const std::size_t arrow = both.find("=>");
  if (arrow == std::string::npos) return false;
  const std::string from = both.substr(0, arrow), to = both.substr(arrow + 2);
  int found = 0;
  for (auto& [path, text] : headers)
    for (std::size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()), ++found)
      text.replace(at, from.size(), to);
  return found == 1;
}

fs::path own_directory() {
  Dl_info self;
  dladdr(reinterpret_cast<void*>(&own_directory), &self);
  return fs::absolute(self.dli_fname).parent_path();
}

int compile(Program& program, const std::vector<std::string>& flags) {
  if (!edit(program.headers)) {
    program.log = "DG_EMULATOR_EDIT is no \"from=>to\" whose \"from\" stands in the device headers once";
    return 1;
  }
  std::string pattern = (fs::temp_directory_path() / "deep_gemm_emulator.XXXXXX").string();
  if (!mkdtemp(pattern.data())) {
    program.log = "no temporary directory";
    return 1;
  }
  const fs::path directory = pattern;
  const std::string entry = program.name.substr(0, program.name.rfind('.'));
  const fs::path source = directory / program.name;
  write(source,
        translated(program.text) +
            fmt::format("namespace deep_gemm::bench {{}}\nusing namespace deep_gemm::bench;\nEMULATOR_EXPORT({})\n",
                        entry));
  for (const auto& [path, text] : program.headers) write(directory / "headers" / path, translated(text));
  const fs::path output = directory / "kernel.so", log = directory / "log";
  const bool debug = std::getenv("DG_EMULATOR_DEBUG") != nullptr;
  const char* more = std::getenv("DG_EMULATOR_FLAGS");
  const std::string library = (own_directory() / "libcuda.so.1").string();
  // Accesses are announced to that library, and not to the sanitizer's, which would be linked in one step.
  const bool races = std::getenv("DG_EMULATOR_RACES") != nullptr;
  const fs::path object = directory / "kernel.o";
  // Without -fno-gnu-unique a kernel could not be unloaded.
  const std::string command = fmt::format(
      "{{ '{0}' -x c++ -w {1} -march=native -fno-gnu-unique -fno-exceptions -fPIC {2} {3} {4} -include '{5}/device.h' "
      "-I'{5}' -I'{6}/headers' -c '{7}' -o '{8}' && '{0}' -shared {4} '{8}' '{9}' -o '{10}'; }} 2>'{11}'",
      EMULATOR_COMPILER, debug ? "-g -O0 -DEMULATOR_DEBUG" : "-O3",
      races ? "-fsanitize=thread --param tsan-instrument-func-entry-exit=0" : "", fmt::join(flags, " "),
      more ? more : "", EMULATOR_INCLUDE, directory.string(), source.string(), object.string(), library,
      output.string(), log.string());
  const bool failed = std::system(command.c_str()) != 0;
  program.log = read(log);
  program.image = failed ? "" : read(output);
  if (!debug) fs::remove_all(directory);  // a debugger reads it
  return failed ? 6 : 0;                  // NVRTC_ERROR_COMPILATION
}

int copy(const std::string& text, char* to) { return std::memcpy(to, text.c_str(), text.size() + 1), 0; }

}  // namespace

EXPORT int nvrtcVersion(int* major, int* minor) { return *major = 13, *minor = 0, 0; }
EXPORT const char* nvrtcGetErrorString(int) { return "an error of the emulator's compiler"; }
EXPORT int nvrtcCreateProgram(void** program, const char* text, const char* name, int headers, const char* const* texts,
                              const char* const* names) {
  auto* const made = new Program{text, name, {}, {}, {}};
  for (int i = 0; i < headers; ++i) made->headers.emplace_back(names[i], texts[i]);
  return *program = made, 0;
}
EXPORT int nvrtcDestroyProgram(void** program) { return delete static_cast<Program*>(*program), *program = nullptr, 0; }
EXPORT int nvrtcCompileProgram(void* program, int count, const char* const* options) {
  std::vector<std::string> flags;
  for (int i = 0; i < count; ++i)
    if (const std::string option = options[i]; option.starts_with("-D") || option.starts_with("--std="))
      flags.push_back(option);
  return compile(*static_cast<Program*>(program), flags);
}
EXPORT int nvrtcGetCUBINSize(void* program, std::size_t* bytes) {
  return *bytes = static_cast<Program*>(program)->image.size(), 0;
}
EXPORT int nvrtcGetCUBIN(void* program, char* cubin) {
  const std::string& image = static_cast<Program*>(program)->image;
  return std::memcpy(cubin, image.data(), image.size()), 0;
}
EXPORT int nvrtcGetPTXSize(void* program, std::size_t* bytes) {
  return *bytes = static_cast<Program*>(program)->text.size() + 1, 0;
}
EXPORT int nvrtcGetPTX(void* program, char* ptx) { return copy(static_cast<Program*>(program)->text, ptx); }
EXPORT int nvrtcGetProgramLogSize(void* program, std::size_t* bytes) {
  return *bytes = static_cast<Program*>(program)->log.size() + 1, 0;
}
EXPORT int nvrtcGetProgramLog(void* program, char* log) { return copy(static_cast<Program*>(program)->log, log); }
