#include "target.h"

#include <cstdlib>
#include <cstring>

namespace dtrain {

static const char* detect() {
    const char* wish = std::getenv("DTRAIN_CPU");
    if (wish && std::strcmp(wish, "portable") == 0) return "portable";
#if DT_HAS_AVX2_PATH
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "avx2";
#endif
    return "portable";
}

const char* instruction_set() {
    static const char* const found = detect();
    return found;
}

}  // namespace dtrain
