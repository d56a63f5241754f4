# `make demo` shows the main job; `make test` is what CI runs.
CARGO ?= cargo

.PHONY: demo build test live bench fmt lint

build:
	$(CARGO) build --release

demo: build
	./target/release/lazarus demo

test:
	$(CARGO) test --all-targets
