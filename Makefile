# `make demo` shows the main job; `make test` is what CI runs.
CARGO ?= cargo

.PHONY: demo build test live bench lint

build:
	$(CARGO) build --release

demo: build
	./target/release/lazarus demo

# As root, what the tests run is installed; else they say what is missing.
test:
	@if ! command -v git >/dev/null; then if [ "$$(id -u)" = 0 ]; then apt-get update -q && apt-get install -qy git; else echo "make test needs git 2.30 or newer"; exit 2; fi; fi
	$(CARGO) test --lib --bins --tests

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

# The conversations against a real Gitea or Forgejo server:
#   make live FORGE_URL=http://127.0.0.1:3000 FORGE_ADMIN_TOKEN=…
# They make their own users, organisations and repositories there and remove
# them. The server must allow hooks to this machine ([webhook] ALLOWED_HOST_LIST).
live:
	@test -n "$(FORGE_URL)" && test -n "$(FORGE_ADMIN_TOKEN)" || { echo "make live needs FORGE_URL and FORGE_ADMIN_TOKEN"; exit 2; }
	@FORGE_URL="$(FORGE_URL)" FORGE_ADMIN_TOKEN="$(FORGE_ADMIN_TOKEN)" $(CARGO) test --test conversations

# The figures of docs/figures.md: a table, and target/bench/figures.json. Some
# alone: make bench ONLY="cell_start status".
bench:
	$(CARGO) bench --bench figures -- $(ONLY)
