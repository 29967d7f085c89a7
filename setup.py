"""The compiled parts. They are optional: without a C compiler Penstock installs and runs on the plain decoder."""

from pathlib import Path

from setuptools import Extension, setup

DECODE = "src/penstock/decode"
FLAGS = ["-O3", "-std=gnu11", "-fno-math-errno", "-Wno-unused-function"]

setup(
    ext_modules=[
        Extension(
            "penstock.decode._native",
            [f"{DECODE}/_native.pyx"],
            depends=[str(path) for path in sorted(Path(DECODE, "native").iterdir()) if path.suffix in (".h", ".pxi")],
            include_dirs=[DECODE],
            extra_compile_args=FLAGS,
            optional=True,
        ),
        Extension(
            "penstock.postgres._drain",
            ["src/penstock/postgres/_drain.pyx"],
            extra_compile_args=FLAGS,
            optional=True,
        ),
    ],
)
