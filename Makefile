# `make demo` shows the main job; `make test` is what CI runs.
CARGO ?= cargo

.PHONY: demo build test tools live twins toolchains bench fmt lint

build:
	$(CARGO) build --release

demo: build
	./target/release/lazarus demo

# All tests, from a clean checkout. No benches: the figures are `make bench`.
test: tools
	$(CARGO) test --locked --no-fail-fast --workspace --lib --bins --tests --examples
	$(CARGO) test --locked --package lazarus-gitea --doc

# What the tests need beside Rust and a C compiler. As root it is installed.
tools:
	@command -v git >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get -qq update >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get -qq -y install git >/dev/null; \
	  else echo "the tests need git 2.30 or newer: install it"; exit 2; fi; }

# The conversations against a real Gitea or Forgejo server:
#   make live FORGE_URL=http://127.0.0.1:3000 FORGE_ADMIN_TOKEN=…
# They make their own users, organisations and repositories there and remove
# them. The server must allow hooks to this machine ([webhook] ALLOWED_HOST_LIST).
live:
	@test -n "$(FORGE_URL)" && test -n "$(FORGE_ADMIN_TOKEN)" || { echo "make live needs FORGE_URL and FORGE_ADMIN_TOKEN"; exit 2; }
	@FORGE_URL="$(FORGE_URL)" FORGE_ADMIN_TOKEN="$(FORGE_ADMIN_TOKEN)" $(CARGO) test --test conversations

# The stand-in compared with a real Gitea 1.25.4 or Forgejo 12, call by call.
# With TWINS_RECORD=1 what the server says is written down anew.
twins:
	@test -n "$(FORGE_URL)" && test -n "$(FORGE_ADMIN_TOKEN)" || { echo "make twins needs FORGE_URL and FORGE_ADMIN_TOKEN"; exit 2; }
	@FORGE_URL="$(FORGE_URL)" FORGE_ADMIN_TOKEN="$(FORGE_ADMIN_TOKEN)" $(CARGO) test --test standin twins

# Small real projects of every kind, built and tested in cells as root and as an
# ordinary user: target/toolchains/table.json. As root, Debian's packages are
# installed for it; what cannot be had is a row that says so.
toolchains: tools
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get -qq update >/dev/null; \
	  for package in gcc make nodejs npm maven default-jdk-headless golang-go chromium postgresql; do \
	    case $$package in nodejs) p=node;; maven) p=mvn;; default-jdk-headless) p=javac;; golang-go) p=/usr/local/go/bin/go;; \
	      postgresql) p=initdb;; *) p=$$package;; esac; \
	    command -v $$p >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends $$package >/dev/null \
	      || echo "$$package cannot be installed"; \
	  done; fi
	$(CARGO) test --locked --test escape -- --ignored --exact --nocapture toolchains_build_and_test_small_projects

# The figures of docs/figures.md: a table, and target/bench/figures.json. Some
# alone: make bench ONLY="cell_start status".
bench:
	$(CARGO) bench --bench figures -- $(ONLY)

fmt:
	$(CARGO) fmt --all

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
