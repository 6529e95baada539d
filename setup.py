"""Builds `dtrain._native`, the CPU kernels. Everything else about the package is in pyproject.toml.

Without a working compiler the install goes on and dtrain computes in NumPy; DTRAIN_REQUIRE_NATIVE=1 makes that an error.
"""

import glob
import os
import sys
import sysconfig

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

REQUIRED = os.environ.get("DTRAIN_REQUIRE_NATIVE", "0") not in ("", "0")
STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")        # free-threaded Python has no stable ABI


class BuildNative(build_ext):
    """Turns a failed compilation into a message that says what is lost and what to do."""

    def run(self):
        try:
            super().run()
        except Exception as error:
            self.explain(error)

    def build_extension(self, ext):
        try:
            super().build_extension(ext)
        except Exception as error:
            self.explain(error)

    def copy_extensions_to_source(self):
        self.extensions = [ext for ext in self.extensions if os.path.exists(self.built(ext))]
        super().copy_extensions_to_source()

    def get_outputs(self):
        return [path for path in super().get_outputs() if os.path.exists(path)]

    def built(self, ext):
        return os.path.join(self.build_lib, self.get_ext_filename(self.get_ext_fullname(ext.name)))

    def explain(self, error):
        if REQUIRED:
            raise SystemExit(f"dtrain: the native CPU kernels did not build and DTRAIN_REQUIRE_NATIVE=1: {error}")
        print(
            f"dtrain: WARNING: the native CPU kernels did not build ({error}). dtrain will work and compute in NumPy, more"
            " slowly. To have them, install a C++17 compiler (Debian: apt-get install g++) and install dtrain again;"
            " DTRAIN_REQUIRE_NATIVE=1 makes this an error.",
            file=sys.stderr,
        )


# Named by the linked path: through ../kernels the sources are lost from a wheel that is built from an sdist.
native = Extension(
    "dtrain._native",
    sources=sorted(glob.glob("dtrain/kernels/cpu/*.cpp")),
    depends=sorted(glob.glob("dtrain/kernels/cpu/*.h") + glob.glob("dtrain/kernels/common/*.h")),
    language="c++",
    define_macros=[("Py_LIMITED_API", "0x030B0000")] if STABLE_ABI else [],
    py_limited_api=STABLE_ABI,
    # No contraction: an element's result must not depend on whether it falls into a vector or into the remainder.
    extra_compile_args=["-std=c++17", "-O3", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-pthread", "-g0"],
    extra_link_args=["-pthread"],
)

setup(
    ext_modules=[native],
    cmdclass={"build_ext": BuildNative},
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE_ABI else {},
)
