# Weir: one Makefile, not recursive. Sources are found by folder; a new file needs no edit here.
#
#   make            build/weir and build/weir-worker
#   make run        set up, build, serve      PORT= HOST= MODEL= ARGS=
#   make test       set up, build, lint, every test (TEST_SCALE=1); test-long runs the full counts
#   make asan|ubsan|tsan   the same binaries and tests under a sanitizer, in build/<mode>/
#   make fuzz       every fuzz target for FUZZ_SECONDS each
#   make bench      one JSON line per case
#   make lint       include arrows, file sizes, formatting of names
#   make CUDA=1     also backend-cuda.so beside weir-worker; CUDA_ARCHS= picks architectures (80 89 90a)
#   make gpu-bundle build/weir-gpu-90a.tar.gz: programs, benchmark and scripts/gpu_check.sh for a GPU machine (BUNDLE_ARCH=)
#   make cuda-report   registers and shared memory of every kernel; fails where one spills

MODE ?= plain
B := build/$(MODE)
CC ?= gcc
FUZZ_CC ?= clang
PY := build/venv/bin/python

CSTD := -std=c17 -D_GNU_SOURCE
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wpointer-arith -Wcast-qual
ifneq ($(WERROR),0)
WARN += -Werror
endif
# Sanitized code compiles in half the time with -O1, and runs as fast: the checks take the time.
OPT_LEVEL := $(if $(filter asan ubsan tsan fuzz,$(MODE)),-O1 -g1,-O2 -g)
ifneq ($(filter asan ubsan tsan,$(MODE)),)
WARN += -Wno-maybe-uninitialized # gcc sees ghosts in sanitized code; the plain build checks it
endif
OPT := $(OPT_LEVEL) -fno-omit-frame-pointer -fno-math-errno
# asan brings UBSan along: one build, both checks. ubsan alone runs where ASan's memory is too much.
SAN_asan := -fsanitize=address,undefined -fno-sanitize-recover=all -DWEIR_SANITIZE=1
SAN_ubsan := -fsanitize=undefined -fno-sanitize-recover=all -DWEIR_SANITIZE=1
SAN_tsan := -fsanitize=thread -DWEIR_SANITIZE=1
SAN_fuzz := -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all -DWEIR_SANITIZE=1
ifeq ($(MODE),fuzz)
override CC := $(FUZZ_CC)
endif
SAN := $(SAN_$(MODE))
VERSION := $(shell sed -n 's/.*WEIR_VERSION "\(.*\)".*/\1/p' common/version.h)
CFLAGS_ALL = $(CSTD) $(WARN) $(OPT) $(SAN) -pthread -MMD -MP -I. -I$(B)/gen $(CFLAGS)
CXX_EMU = -std=c++20 -fPIC -DWEIR_CUDA_EMU='"tests/cuda/emu.h"' -Wall -Wextra -Wno-unknown-pragmas $(if $(WARN),-Werror) $(OPT) $(SAN) -MMD -MP -I.
LDFLAGS_ALL := $(SAN) -pthread -rdynamic $(LDFLAGS)
LIBS_COMMON := -ljansson -lprotobuf-c -lnng -lcrypto -lm -ldl
LIBS_ROUTER := -lh2o-evloop -lssl

COMMON_SRC := $(wildcard common/*.c common/*/*.c)
ROUTER_SRC := $(wildcard router/*.c router/*/*.c)
WORKER_SRC := $(wildcard worker/*.c worker/model/*.c worker/cpu/*.c worker/kvx/*.c)
ROUTER_LIB_SRC := $(filter-out router/main.c,$(ROUTER_SRC))
WORKER_LIB_SRC := $(filter-out worker/main.c,$(WORKER_SRC))
SUPPORT_SRC := $(wildcard tests/support/*.c)
TEST_SRC := $(wildcard tests/unit/test_*.c tests/parity/test_*.c tests/sim/test_*.c)
TOOL_SRC := $(wildcard tests/gram/*.c)
BENCH_SRC := $(wildcard tests/bench/bench_*.c)
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)

obj = $(patsubst %.c,$(B)/%.o,$(1))
GEN := $(B)/gen/proto/weir.pb-c.h $(B)/gen/proto/otlp.pb-c.h
LIBCOMMON := $(B)/libcommon.a
LIBROUTER := $(B)/librouter.a
LIBWORKER := $(B)/libworker.a
LIBSUPPORT := $(B)/libsupport.a
TEST_BIN := $(patsubst %.c,$(B)/%,$(TEST_SRC))
TOOL_BIN := $(patsubst %.c,$(B)/%,$(TOOL_SRC))
BENCH_BIN := $(patsubst %.c,$(B)/%,$(BENCH_SRC))
FUZZ_BIN := $(patsubst %.c,$(B)/%,$(FUZZ_SRC))
PROGRAMS := $(B)/weir $(B)/weir-worker
PLUGINS := $(patsubst worker/plugin/%.c,$(B)/plugin/%.so,$(wildcard worker/plugin/*.c))

# The CUDA backend; and its kernels as plain C++ on an emulated device, which the tests run everywhere.
NVCC ?= $(or $(shell command -v nvcc),/usr/local/cuda/bin/nvcc)
CUDA_ARCHS ?= 80 89 90a
comma := ,
CUDA_SRC := $(wildcard worker/cuda/*.cu)
CUDA_OBJ := $(B)/cuda-$(subst $() ,-,$(strip $(CUDA_ARCHS)))# each choice of architectures has a folder
CUDA_SO := $(CUDA_OBJ)/backend-cuda.so
EMU_SRC := $(filter-out worker/cuda/rt_cuda.cu worker/cuda/nccl.cu,$(CUDA_SRC))
EMU_OBJ := $(patsubst %.cu,$(B)/emu/%.o,$(EMU_SRC)) $(patsubst %.cc,$(B)/emu/%.o,$(wildcard tests/cuda/*.cc))
EMU_TEST := $(addprefix $(B)/tests/cuda/test_cuda_,ops attn moe sample ranks tiles selftest memory)
LIBEMU := $(B)/libemu.a
EMU_SO := $(B)/emu/backend-cuda.so

.PHONY: all cuda cuda-report gpu-bundle emu-backend programs tests-bin bench-bin fuzz-bin
all: programs
ifeq ($(MODE),plain)
	@ln -sf plain/weir build/weir && ln -sf plain/weir-worker build/weir-worker
endif
programs: $(PROGRAMS) $(PLUGINS) $(if $(filter 1,$(CUDA)),cuda)
tests-bin: $(TEST_BIN) $(TOOL_BIN) $(EMU_TEST)
bench-bin: $(BENCH_BIN)
fuzz-bin: $(FUZZ_BIN)

$(B)/gen/proto/%.pb-c.c $(B)/gen/proto/%.pb-c.h: proto/%.proto
	@mkdir -p $(B)/gen
	protoc-c --c_out=$(B)/gen $<
.PRECIOUS: $(B)/gen/proto/%.pb-c.c
$(B)/gen/proto/%.pb-c.o: $(B)/gen/proto/%.pb-c.c
	$(CC) $(CSTD) $(OPT) $(SAN) -pthread -I$(B)/gen -c $< -o $@

$(B)/plugin/%.so: worker/plugin/%.c worker/plugin/weir_plugin.h
	@mkdir -p $(@D)
	$(CC) $(CSTD) -D_GNU_SOURCE $(WARN) $(OPT) $(SAN) -fPIC -shared -I. -o $@ $< -ljansson -lm

# AVX2 code is chosen at run time, so only these files may use it.
$(B)/%_avx2.o: EXTRA := -mavx2 -mfma -mf16c $(if $(filter plain,$(MODE)),-O3)
ifeq ($(MODE),fuzz)
$(B)/%_avx2.o: SAN := # no input of a parser reaches the kernels, which clang instruments for minutes
endif
# h2o/http2_internal.h wants a header that Debian does not package.
$(B)/router/http2.o $(B)/router/http2_sweep.o: CFLAGS_ALL += -Irouter/shim
$(B)/%.o: %.c | $(GEN)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(EXTRA) -c $< -o $@

$(LIBCOMMON): $(call obj,$(COMMON_SRC)) $(B)/gen/proto/weir.pb-c.o
$(LIBROUTER): $(call obj,$(ROUTER_LIB_SRC)) $(B)/gen/proto/otlp.pb-c.o
$(LIBWORKER): $(call obj,$(WORKER_LIB_SRC))
$(LIBSUPPORT): $(call obj,$(SUPPORT_SRC))
$(LIBCOMMON) $(LIBROUTER) $(LIBWORKER) $(LIBSUPPORT):
	@mkdir -p $(@D)
	@rm -f $@
	ar rcs $@ $^

$(B)/router/ui/page.o: router/ui/playground.html # taken in by the assembler, which names no dependencies
$(B)/weir: $(call obj,router/main.c) $(LIBROUTER) $(LIBCOMMON)
	$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS_ROUTER) $(LIBS_COMMON)
$(B)/weir-worker: $(call obj,worker/main.c) $(LIBWORKER) $(LIBCOMMON)
	$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS_COMMON)

$(TEST_BIN) $(TOOL_BIN) $(BENCH_BIN): $(B)/%: $(B)/%.o $(LIBSUPPORT) $(LIBROUTER) $(LIBWORKER) $(LIBCOMMON)
	$(CC) $(LDFLAGS_ALL) $(if $(filter tsan,$(MODE)),-Wl$(comma)-u$(comma)tsan_nng) -o $@ $^ $(LIBS_ROUTER) $(LIBS_COMMON) -lcmocka
$(FUZZ_BIN): $(B)/%: $(B)/%.o $(LIBSUPPORT) $(LIBROUTER) $(LIBWORKER) $(LIBCOMMON)
	$(CC) $(LDFLAGS_ALL) -fsanitize=fuzzer -o $@ $^ $(LIBS_ROUTER) $(LIBS_COMMON)

# What ptxas says of each kernel is kept beside its object: scripts/ptxas_report.py
$(CUDA_OBJ)/%.o: worker/cuda/%.cu
	@mkdir -p $(@D)
	$(NVCC) -std=c++20 -O3 -lineinfo -I. -MMD -MP $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a)$(comma)code=sm_$(a)) \
		$(if $(word 2,$(CUDA_ARCHS)),-gencode arch=compute_90$(comma)code=compute_90) -Xcompiler -fPIC,-Wall,-Wextra,-fvisibility=hidden -Xptxas -v -c $< -o $@ \
		2>$(@:.o=.ptxas) || { cat $(@:.o=.ptxas) >&2; rm -f $@; false; }
	@! grep -i 'warning' $(@:.o=.ptxas) >&2
$(CUDA_SO): $(patsubst worker/cuda/%.cu,$(CUDA_OBJ)/%.o,$(CUDA_SRC))
	$(NVCC) -shared -cudart static -Xcompiler -static-libstdc++,-static-libgcc -o $@ $^ -lcublasLt -ldl -Xlinker '-rpath=$$ORIGIN/lib'
# The one beside weir-worker, and beside the benchmarks, is the last that was built.
cuda: $(CUDA_SO)
	@mkdir -p $(B)/tests/bench && ln -sf $(patsubst $(B)/%,%,$<) $(B)/backend-cuda.so && \
		ln -sf ../../$(patsubst $(B)/%,%,$<) $(B)/tests/bench/backend-cuda.so
cuda-report: $(CUDA_SO)
	@scripts/ptxas_report.py $(CUDA_OBJ)

$(B)/emu/%.o: %.cu
	@mkdir -p $(@D)
	$(CXX) -x c++ $(CXX_EMU) -c $< -o $@
$(B)/emu/%.o: %.cc
	@mkdir -p $(@D)
	$(CXX) $(CXX_EMU) -c $< -o $@
# A bundle for a machine with nothing but the driver and the CUDA libraries: static where Debian has an archive, the rest of
# the libraries in lib/ beside the programs. One architecture.
BUNDLE_ARCH ?= 90a
BUNDLE := $(B)/bundle
BUNDLE_PARTS := $(addprefix $(BUNDLE)/,weir weir-worker bench_gpu bench_gpu_parity backend-cuda.so)
LIBS_STATIC := -Wl,-Bstatic -lprotobuf-c -lnng -lmbedtls -lmbedx509 -lmbedcrypto -Wl,-Bdynamic -lcrypto -lm -ldl
BUNDLE_LINK = @mkdir -p $(@D) && $(CC) $(LDFLAGS_ALL) -Wl,--disable-new-dtags,-rpath,'$$ORIGIN/lib' -o $@ $^
# Jansson's archive has names of its own making (utf8_encode) that are ours, too: only its json_ ones stay visible.
$(BUNDLE)/jansson.o:
	@mkdir -p $(@D)
	ld -r -o $@ --whole-archive $(shell $(CC) -print-file-name=libjansson.a)
	objcopy --wildcard --keep-global-symbol='json_*' --keep-global-symbol='jansson_*' $@
$(BUNDLE)/weir: $(call obj,router/main.c) $(LIBROUTER) $(LIBCOMMON) $(BUNDLE)/jansson.o
	$(BUNDLE_LINK) $(LIBS_ROUTER) $(LIBS_STATIC)
$(BUNDLE)/weir-worker: $(call obj,worker/main.c) $(LIBWORKER) $(LIBCOMMON) $(BUNDLE)/jansson.o
	$(BUNDLE_LINK) $(LIBS_STATIC)
$(BUNDLE)/bench_%: $(B)/tests/bench/bench_%.o $(LIBSUPPORT) $(LIBWORKER) $(LIBCOMMON) $(BUNDLE)/jansson.o
	$(BUNDLE_LINK) $(LIBS_STATIC)
$(BUNDLE)/backend-cuda.so: $(CUDA_SO)
	@mkdir -p $(@D) && cp $< $@
gpu-bundle:
	@$(MAKE) --no-print-directory CUDA_ARCHS=$(BUNDLE_ARCH) $(BUNDLE_PARTS)
	@scripts/gpu_bundle.sh $(BUNDLE) $(BUNDLE_ARCH)

# The emulated device as a backend that weir-worker loads, for the GPU's scripts and benchmarks where there is no GPU.
$(EMU_SO): $(EMU_OBJ)
	$(CXX) $(SAN) -shared -o $@ $^
emu-backend: $(EMU_SO)
$(LIBEMU): $(EMU_OBJ)
	@rm -f $@
	ar rcs $@ $^
$(addprefix $(B)/tests/cuda/test_cuda_,$(addsuffix .o,tiles selftest memory)): $(B)/%.o: %.c | $(GEN)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -DPARITY_CUDA -c $< -o $@
$(B)/tests/cuda/test_cuda_%.o: tests/parity/test_parity_%.c | $(GEN)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) -DPARITY_CUDA -c $< -o $@
$(EMU_TEST): $(B)/%: $(B)/%.o $(LIBEMU) $(B)/tests/support/model_run.o $(LIBWORKER) $(LIBCOMMON)
	$(CXX) $(LDFLAGS_ALL) -o $@ $^ $(LIBS_COMMON) -lcmocka

-include $(shell find $(B) -name '*.d' 2>/dev/null)

include scripts/targets.mk
