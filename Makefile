# The project's commands. `make demo` and `make test` install what is missing.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  = -s -w -X main.version=$(VERSION)

# Peers of the suites, by Debian's names.
PEERS = postfix swaks libnet-ssleay-perl dovecot-core dovecot-lmtpd dovecot-imapd dovecot-submissiond postgresql strace systemd openssl softhsm2 curl bind9 bind9-dnsutils

.PHONY: all build build-pkcs11 demo test unit lint docs bench chaos fuzz deps clean

all: build

build: bin/sallyport

bin/sallyport: FORCE
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/sallyport
FORCE:

# The same with PKCS#11 tokens, linked with the C library of this machine. It
# wants a C compiler.
build-pkcs11:
	CGO_ENABLED=1 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/sallyport ./cmd/sallyport

# The gateway at work on loopback, counted.
demo:
	CGO_ENABLED=0 $(GO) run ./cmd/sallyport demo

# Everything but the time that fuzzing wants: `.ci/run` adds 30 s a target.
test: deps lint
	$(GO) test -v -race -timeout 30m ./...
	CGO_ENABLED=0 $(GO) test -v ./internal/keeper/pkcs11

# Fast tests only; peers that are missing are skipped.
unit:
	$(GO) test ./...

lint:
	@unformatted=$$(gofmt -l cmd internal test); test -z "$$unformatted" || { echo "gofmt would change: $$unformatted"; exit 1; }
	$(GO) vet ./...
	CGO_ENABLED=0 $(GO) vet ./internal/keeper/pkcs11 ./cmd/sallyport
	$(GO) tool staticcheck ./...

# Documents that are written from the code.
docs:
	SALLYPORT_WRITE_DOCS=1 $(GO) test -count=1 -run 'Documented' ./cmd/sallyport

# Comparisons with Postfix in the same run, and rows beside files for the row
# limit; prints the tables of docs/benchmarks.md.
bench: deps
	$(GO) test -run '^$$' -bench RowLimit -benchtime 2s ./internal/store
	$(GO) test -run '^$$' -bench Append ./internal/ledger
	$(GO) test -run '^$$' -bench Issue -benchtime 36100x ./internal/keeper
	$(GO) test -run '^$$' -bench Handshake -benchtime 20000x ./internal/keeper
	SALLYPORT_BENCH=1 $(GO) test -v -count=1 -run TestMillion ./internal/ledger
	SALLYPORT_BENCH=1 $(GO) test -v -count=1 -timeout 60m -run TestBenchMutual ./cmd/sallyport
	SALLYPORT_BENCH=1 $(GO) test -v -count=1 -timeout 60m -run 'TestBench|TestReplaceMany' ./test

# The long form: 50 kills a store, power cuts, the million, a flood, the unit under
# systemd (which needs root).
chaos: deps
	SALLYPORT_CHAOS=1 $(GO) test -v -timeout 120m -run 'Kill|Power|Million|Disk|NoSpace|Flood|Outage|Rogue|Tenants|Corpora|Systemd|EachChange' ./test ./internal/store ./internal/queue ./internal/keeper ./internal/ledger

# Every fuzz target for FUZZTIME, FUZZERS of them at a time, a core each.
FUZZTIME ?= 5m
FUZZERS  ?= $(shell nproc)
fuzz:
	@for pkg in $$($(GO) list ./...); do \
	  $(GO) test -list '^Fuzz' $$pkg | sed -n "s|^Fuzz.*|$$pkg &|p"; \
	done | GO='$(GO)' FUZZTIME=$(FUZZTIME) xargs -P $(FUZZERS) -L 1 .ci/fuzz

# Packages that the suites need. As root they are installed; otherwise the
# line to type is printed, and suites whose peer is missing say so.
deps:
	@missing=""; for p in $(PEERS); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	else echo "to run every suite: sudo apt-get install$$missing"; fi

clean:
	rm -rf bin
