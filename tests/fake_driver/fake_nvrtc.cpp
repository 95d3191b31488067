// An NVRTC that compiles nothing and has the version of its file's name (libnvrtc.so.12.8), so that the search for NVRTC
// is tested without one.
#include <dlfcn.h>

#include <cstddef>
#include <cstdio>
#include <cstring>

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int nvrtcVersion(int* major, int* minor) {
  Dl_info self;
  if (!dladdr(reinterpret_cast<void*>(&nvrtcVersion), &self)) return 1;
  const char* suffix = std::strstr(self.dli_fname, ".so.");
  return suffix && std::sscanf(suffix, ".so.%d.%d", major, minor) == 2 ? 0 : 1;
}
EXPORT const char* nvrtcGetErrorString(int) { return "an error"; }
EXPORT int nvrtcCreateProgram(void** program, const char*, const char*, int, const char* const*, const char* const*) {
  static int instance;
  return *program = &instance, 0;
}
EXPORT int nvrtcDestroyProgram(void**) { return 0; }
EXPORT int nvrtcCompileProgram(void*, int, const char* const*) { return 0; }
EXPORT int nvrtcGetCUBINSize(void*, std::size_t* bytes) { return *bytes = 5, 0; }
EXPORT int nvrtcGetCUBIN(void*, char* cubin) { return std::memcpy(cubin, "cubin", 5), 0; }
EXPORT int nvrtcGetPTXSize(void*, std::size_t* bytes) { return *bytes = 4, 0; }
EXPORT int nvrtcGetPTX(void*, char* ptx) { return std::memcpy(ptx, "ptx", 4), 0; }
EXPORT int nvrtcGetProgramLogSize(void*, std::size_t* bytes) { return *bytes = 1, 0; }
EXPORT int nvrtcGetProgramLog(void*, char* log) { return *log = 0, 0; }
