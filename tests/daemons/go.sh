#!/usr/bin/env bash
# A Go program with cgo: its own signal handlers and stacks, threads by raw clone, memory from Firn through
# C.malloc, faults that become panics, and an HTTP server.
. "$(dirname "$0")/lib.sh"

seconds=120
port=$(free_port)

compile() {
    mkdir -p "$work/go"
    cat >"$work/go/main.go" <<'END'
package main

/*
#include <stdlib.h>
#include <string.h>
static void *fill(size_t n, int c) { void *p = malloc(n); if (p) memset(p, c, n); return p; }
static long sum(const unsigned char *p, size_t n) { long s = 0; for (size_t i = 0; i < n; i++) s += p[i]; return s; }
*/
import "C"

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"unsafe"
)

type node struct{ value int }

func fault(p *node) (caught bool) {
	defer func() { caught = recover() != nil }()
	p.value++
	return false
}

func work(n int) string {
	var wait sync.WaitGroup
	sums := make([]int64, 8)
	for t := range sums {
		wait.Add(1)
		go func(t int) {
			defer wait.Done()
			blocks := map[int]unsafe.Pointer{}
			for i := 0; i < n; i++ {
				size := 1 + (i*7919+t*13)%3000
				if old, there := blocks[i%64]; there {
					C.free(old)
				}
				p := C.fill(C.size_t(size), C.int(i%251))
				sums[t] += int64(C.sum((*C.uchar)(p), C.size_t(size)))
				blocks[i%64] = p
				if i%100 == 0 && !fault(nil) {
					panic("a fault that was none")
				}
			}
			for _, p := range blocks {
				C.free(p)
			}
		}(t)
	}
	wait.Wait()
	return fmt.Sprintf("%x", sha256.Sum256([]byte(fmt.Sprint(sums))))
}

func main() {
	said, err := exec.Command("sh", "-c", "seq 1 50 | cksum").Output()
	fmt.Print(string(said), err, "\n")
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Path[1:])
		fmt.Fprintln(w, work(n))
	})
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	go http.ListenAndServe("127.0.0.1:"+os.Args[1], nil)
	<-end
	fmt.Println("end", work(2000))
}
END
    (cd "$work/go" && HOME=$work GOFLAGS=-mod=mod GO111MODULE=off CGO_ENABLED=1 timeout 170 go build -o "$work/server" main.go 2>&1)
}

drive() {
    start "$port" "$work/server" "$port" || return
    load
    sleep "$idle"
    load
    stop "$pid"
    grep -v '^$' "$work/$how.log" >>"$out"
}

load() {
    python3 "$daemons_here/fetch.py" "http://127.0.0.1:$port" $((short ? 3 : 10)) 4 /100 /1000 /3000 >>"$out" 2>&1
}

if need go go python3; then
    compile
    if [ -x "$work/server" ]; then compare go drive; else not_ok go "does not compile"; fi
fi
finish
