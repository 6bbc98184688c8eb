// Command processor measures what completing identity costs a Collector, beside doing nothing,
// beside groupbytrace with transform, and beside tail_sampling: the real binary, the same traffic,
// one run.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	spans := flag.Int("spans", 500_000, "spans for each run at saturation")
	rounds := flag.Int("rounds", 3, "runs of each; the median by CPU counts")
	only := flag.String("only", "", "scenes to run, with commas between; all without")
	out := flag.String("out", "../../.build/bench/processor.json", "where the figures go")
	flag.Parse()
	folder, err := os.MkdirTemp("", "bench-processor")
	must(err)
	defer os.RemoveAll(folder)
	began, report := time.Now(), map[string]any{}
	var met []bar
	for _, s := range scenes {
		if wanted(*only, s.name) {
			results := s.play(folder, *spans, *rounds)
			report[s.name], met = results, append(met, barsOf(s.name, results)...)
		}
	}
	if wanted(*only, "delays") {
		delays := pace(folder, *rounds)
		report["delays"], met = delays, append(met, barsOfDelays(delays)...)
	}
	report["bars"] = met
	showBars(met)
	fmt.Printf("\n%v\n", time.Since(began).Round(time.Second))
	text, err := json.MarshalIndent(report, "", "  ")
	must(err)
	must(os.MkdirAll(filepath.Dir(*out), 0o755))
	must(os.WriteFile(*out, text, 0o644))
}

func wanted(only, name string) bool {
	return only == "" || strings.Contains(","+only+",", ","+name+",")
}
