# What people call: run, test, the sanitizers, fuzz, bench, lint. Included by the Makefile.

.PHONY: run test test-long unit asan ubsan tsan fuzz bench lint setup clean
PORT ?= 8000
HOST ?= 127.0.0.1
MODEL ?= deploy/demo-model
ARGS ?=
# What the model in the box is called, and the form of its tool calls.
DEMO_ARGS := --served-model-name weir-demo --enable-auto-tool-choice --tool-call-parser hermes
TEST_SCALE ?= 1
FUZZ_SECONDS ?= 60
JOBS ?= $(shell nproc)
export TEST_SCALE

run:
	@scripts/setup.sh build
	@$(MAKE) --no-print-directory -q programs 2>/dev/null || \
		echo "building Weir; the first time this takes a minute or two"
	@$(MAKE) --no-print-directory -s -j$(JOBS) all
	@exec build/weir serve $(MODEL) --host $(HOST) --port $(PORT) \
		$(if $(filter deploy/demo-model,$(MODEL)),$(DEMO_ARGS)) $(ARGS)

# The order of the stages, and the closing count, are in scripts/test.sh.
test:
	@scripts/setup.sh packages
	@JOBS=$(JOBS) scripts/test.sh
test-long:
	@scripts/setup.sh packages
	@scripts/setup.sh fuzz
	@JOBS=$(JOBS) TEST_SCALE=$${TEST_SCALE_LONG:-10} scripts/test.sh long

unit: tests-bin
	@scripts/run_units.sh $(TEST_BIN) $(EMU_TEST)
asan ubsan tsan:
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory -j$(JOBS) MODE=$@ programs tests-bin
	@$(MAKE) --no-print-directory MODE=$@ unit

fuzz:
	@scripts/setup.sh fuzz
	@$(MAKE) --no-print-directory -j$(JOBS) MODE=fuzz fuzz-bin
	@scripts/fuzz.sh $(FUZZ_SECONDS)
bench:
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory -s -j$(JOBS) all bench-bin
	@scripts/bench.sh $(BENCH)

lint:
	@scripts/lint.sh
setup:
	@scripts/setup.sh test
clean:
	rm -rf build/plain build/asan build/ubsan build/tsan build/fuzz build/weir build/weir-worker
