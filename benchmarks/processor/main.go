// Command processor measures what completing identity costs a Collector, beside doing nothing,
// beside groupbytrace with transform, and beside tail_sampling: the real binary, the same traffic,
// one run.
package main

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	spans := flag.Int("spans", 600_000, "spans for each run at saturation")
	rounds := flag.Int("rounds", 3, "runs of each; the median by CPU counts")
	only := flag.String("only", "", "scenes to run, with commas between; all without")
	out := flag.String("out", "../../.build/bench/processor.json", "where the figures go")
	flag.Parse()
	folder, err := os.MkdirTemp("", "bench-processor")
	must(err)
	defer os.RemoveAll(folder)
	report := map[string]any{}
	for _, s := range scenes {
		if wanted(*only, s.name) {
			report[s.name] = s.play(folder, *spans, *rounds)
		}
	}
	if wanted(*only, "delays") {
		report["delays"] = pace(folder, *rounds)
	}
	text, err := json.MarshalIndent(report, "", "  ")
	must(err)
	must(os.MkdirAll(filepath.Dir(*out), 0o755))
	must(os.WriteFile(*out, text, 0o644))
}

func wanted(only, name string) bool {
	return only == "" || strings.Contains(","+only+",", ","+name+",")
}
