/* What a processor and its operating system run: asked when a build is chosen, and by setup.py. */

#include <string.h>

#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__)
/* The compiler's own probe asks cpuid and, for the wide registers, the operating system. */
static int fe_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
        && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
static int fe_avx512(void) {
    return fe_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512vl");
}
#else
static int fe_avx2(void) { return 0; }
static int fe_avx512(void) { return 0; }
#endif

/* Whether a build, of this name, can run. */
static int fe_runs(const char *build) {
    if (!strcmp(build, "avx512")) return fe_avx512();
    if (!strcmp(build, "avx2")) return fe_avx2();
    return !strcmp(build, "baseline");
}
