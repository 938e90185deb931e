# What people call: run, test, the sanitizers, fuzz, bench, lint. Included by the Makefile.

.PHONY: run test test-long unit asan ubsan tsan fuzz bench lint setup clean
PORT ?= 8000
HOST ?= 127.0.0.1
TEST_SCALE ?= 1
FUZZ_SECONDS ?= 60
export TEST_SCALE

setup:
	@scripts/setup.sh

unit: tests-bin
	@scripts/run_units.sh $(TEST_BIN)

lint:
	@scripts/lint.sh

clean:
	rm -rf build/plain build/asan build/ubsan build/tsan build/fuzz build/weir build/weir-worker
