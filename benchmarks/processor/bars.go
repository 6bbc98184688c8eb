package main

import (
	"fmt"
	"slices"
)

// leastMore is what the clock of a process can tell apart, in µs for each of 300 000 spans.
const leastMore = 0.03

// bar is something that the processor promises, and what was measured.
type bar struct {
	Promise string  `json:"promise"`
	Figure  float64 `json:"figure"`
	Unit    string  `json:"unit"`
	Limit   float64 `json:"limit"`
	Least   bool    `json:"at_least"` // the limit is a floor, not a ceiling
}

func (b *bar) met() bool {
	if b.Least {
		return b.Figure >= b.Limit
	}
	return b.Figure <= b.Limit
}

func showBars(bars []bar) {
	fmt.Printf("\nwhat is promised, and what was measured:\n")
	for _, b := range bars {
		verdict, sign := "MISSED", "<="
		if b.met() {
			verdict = "met"
		}
		if b.Least {
			sign = ">="
		}
		fmt.Printf("  %-6s %-96s %8.2f %s %g %s\n", verdict, b.Promise, b.Figure, sign, b.Limit, b.Unit)
	}
}

// barsOf are those that a scene is for. CPU is that of the whole process, for each span.
func barsOf(scene string, results []result) []bar {
	if scene == "held" {
		return barsOfHeld(results)
	}
	var bars []bar
	for _, r := range results {
		none := find(results, nothing.name, r.Unidentified)
		if r.Rival == identity.name && r.Unidentified <= fivePercent {
			bars = append(bars, bar{
				Promise: fmt.Sprintf("%s: CPU over no processor at %.0f %% unidentified", scene, 100*r.Unidentified),
				Figure:  100 * (r.Microseconds/none.Microseconds - 1), Unit: "%", Limit: 15,
			})
		}
		if r.Rival == grouping.name {
			bars = append(bars, barsOver(scene, &r, none, find(results, identity.name, r.Unidentified))...)
		}
	}
	return bars
}

// barsOver compares identity with groupbytrace and transform: all that the process takes, and, without
// a limit of its own, what it takes over no processor.
func barsOver(scene string, rival, none, identity *result) []bar {
	return []bar{
		{scene + ": CPU of groupbytrace + transform over that of identity", rival.Microseconds / identity.Microseconds, "times", 4, true},
		{scene + ": the same, only what each takes over no processor", rival.More / max(leastMore, identity.More), "times", 4, true},
		{scene + ": peak memory of groupbytrace + transform over that of identity", float64(rival.PeakRSS) / float64(identity.PeakRSS), "times", 10, true},
		{scene + ": the same, only what each takes over no processor", float64(rival.PeakRSS-none.PeakRSS) / float64(max(1<<20, identity.PeakRSS-none.PeakRSS)), "times", 10, true},
	}
}

func barsOfHeld(results []result) (bars []bar) {
	passing := find(results, identity.name, 0)
	for _, r := range results {
		if r.Rival == identity.name && r.Held > 0 {
			bars = append(bars, bar{
				Promise: fmt.Sprintf("held: CPU of a held span at %.0f %% unidentified", 100*r.Unidentified),
				Figure:  r.ofHeld(passing), Unit: "µs", Limit: 6,
			})
		}
	}
	return bars
}

// ofHeld is what a held span costs, everything that the processor does for it included: what identity
// costs more than nothing, less what it costs where nothing is held.
func (r *result) ofHeld(passing *result) float64 {
	held := float64(r.Held) / float64(r.Spans)
	return (r.More - passing.More*(1-held)) / held
}

func barsOfDelays(delays []delay) (bars []bar) {
	for i := 0; i+1 < len(delays); i += 2 {
		without, with := delays[i], delays[i+1]
		load := fmt.Sprintf("delays at %.0f %% load: ", 100*with.Pace)
		bars = append(bars,
			bar{load + "p50 of all spans over no processor", with.P50 - without.P50, "ms", 1, false},
			bar{load + "p50 from the sending of the ancestor to the backend", with.After50, "ms", 10, false},
			bar{load + "p99 of the same", with.After99, "ms", 10, false},
			bar{load + "p99 inside, from the ancestor's arrival to the exporter's queue", with.Release99, "ms", 10, false},
		)
	}
	return bars
}

func find(results []result, rival string, unidentified float64) *result {
	i := slices.IndexFunc(results, func(r result) bool { return r.Rival == rival && r.Unidentified == unidentified })
	return &results[i]
}
