package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	clockTicks   = 100 // per second, as /proc counts on Linux
	startTimeout = 30 * time.Second
	stopTimeout  = 60 * time.Second
	pollEvery    = 20 * time.Millisecond
)

// collectorBinary is the Collector: OTELCOL_SHIM_BIN, else the one built here.
func collectorBinary() string {
	if file := os.Getenv("OTELCOL_SHIM_BIN"); file != "" {
		return file
	}
	file, err := filepath.Abs(filepath.Join("..", "..", ".build", "bin", "otelcol-shim"))
	must(err)
	return file
}

// process is a running Collector.
type process struct {
	command *exec.Cmd
	log     *os.File
	exited  chan struct{}
}

// startCollector starts the binary and waits until it listens at address.
func startCollector(log string, address string, environment []string, configs ...string) (*process, error) {
	output, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(err)
	arguments := []string{}
	for _, config := range configs {
		arguments = append(arguments, "--config", config)
	}
	command := exec.Command(collectorBinary(), arguments...)
	command.Stdout, command.Stderr = output, output
	command.Env = append(os.Environ(), environment...)
	if err := command.Start(); err != nil {
		return nil, err
	}
	p := &process{command: command, log: output, exited: make(chan struct{})}
	go func() { _ = command.Wait(); close(p.exited) }()
	return p, p.waitFor(address)
}

func (p *process) waitFor(address string) error {
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); time.Sleep(pollEvery) {
		if connection, err := net.Dial("tcp", address); err == nil {
			return connection.Close()
		}
		select {
		case <-p.exited:
			return fmt.Errorf("the collector ended; see %s", p.log.Name())
		default:
		}
	}
	p.kill()
	return fmt.Errorf("the collector does not listen at %s; see %s", address, p.log.Name())
}

// kill ends it as a crash does.
func (p *process) kill() {
	_ = p.command.Process.Kill()
	<-p.exited
	_ = p.log.Close()
}

// stop ends it in order.
func (p *process) stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
		_ = p.log.Close()
	case <-time.After(stopTimeout):
		p.kill()
	}
}

// cpu is the time that the process has computed.
func (p *process) cpu() time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.command.Process.Pid))
	must(err)
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
	user, err := strconv.Atoi(fields[11])
	must(err)
	system, err := strconv.Atoi(fields[12])
	must(err)
	return time.Duration(user+system) * time.Second / clockTicks
}

// peakRSS is the largest resident memory so far, in bytes.
func (p *process) peakRSS() int64 {
	status, err := os.Open(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	must(err)
	defer status.Close()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kilobytes, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			must(err)
			return kilobytes << 10
		}
	}
	return 0
}

// metrics are the Collector's own, summed over their labels.
func metrics(address string) map[string]float64 {
	found := map[string]float64{}
	for line := range strings.Lines(exposition(address)) {
		name, value, ok := sample(line)
		if ok {
			name, _, _ = strings.Cut(name, "{")
			found[name] += value
		}
	}
	return found
}

// quantile is the upper bound of the bucket in which a share of a histogram ends, in its unit.
func quantile(address, name string, share float64) float64 {
	text := exposition(address)
	for line := range strings.Lines(text) {
		series, count, ok := sample(line)
		_, after, isBucket := strings.Cut(series, name+`_bucket{`)
		_, after, hasBound := strings.Cut(after, `le="`)
		if !ok || !isBucket || !hasBound {
			continue
		}
		bound, _, _ := strings.Cut(after, `"`)
		if most, err := strconv.ParseFloat(bound, 64); err == nil && count >= share*totalOf(text, name) {
			return most
		}
	}
	return 0
}

func totalOf(text, name string) (total float64) {
	for line := range strings.Lines(text) {
		if series, count, ok := sample(line); ok && strings.HasPrefix(series, name+"_count") {
			total += count
		}
	}
	return total
}

// sample is the series and the value on one line of what Prometheus scrapes.
func sample(line string) (series string, value float64, ok bool) {
	line = strings.TrimSpace(line)
	at := strings.LastIndexByte(line, ' ')
	if at < 0 || strings.HasPrefix(line, "#") {
		return "", 0, false
	}
	value, err := strconv.ParseFloat(line[at+1:], 64)
	return line[:at], value, err == nil
}

func exposition(address string) string {
	response, err := http.Get("http://" + address + "/metrics")
	must(err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	must(err)
	return string(text)
}

// given are the ports that were handed out: the system may offer one again before it is used.
var given = struct {
	sync.Mutex
	ports map[string]bool
}{ports: map[string]bool{}}

// freeAddresses are addresses of the loopback interface that nobody uses now. They are not among those
// that the system gives to connections, which might take one before its listener does.
func freeAddresses(n int) (addresses []string) {
	given.Lock()
	defer given.Unlock()
	for len(addresses) < n {
		address := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		listener, err := net.Listen("tcp", address)
		if err != nil || given.ports[address] {
			continue
		}
		must(listener.Close())
		given.ports[address] = true
		addresses = append(addresses, address)
	}
	return addresses
}
