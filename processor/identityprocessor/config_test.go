package identityprocessor

import (
	"fmt"
	"math/bits"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/confmaptest"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/metadata"
)

func load(t *testing.T, id component.ID) (*Config, error) {
	conf, err := confmaptest.LoadConf(filepath.Join("testdata", "config.yaml"))
	require.NoError(t, err)
	sub, err := conf.Sub(id.String())
	require.NoError(t, err)
	return unmarshal(sub)
}

func unmarshal(conf *confmap.Conf) (*Config, error) {
	cfg := createDefaultConfig().(*Config)
	if err := conf.Unmarshal(cfg); err != nil {
		return nil, err
	}
	return cfg, cfg.Validate()
}

func TestDefaultsAreValid(t *testing.T) {
	cfg, err := load(t, component.NewID(metadata.Type))
	require.NoError(t, err)
	assert.Equal(t, createDefaultConfig(), cfg)
}

func TestEveryKeyIsRead(t *testing.T) {
	cfg, err := load(t, component.NewIDWithName(metadata.Type, "all"))
	require.NoError(t, err)
	assert.Equal(t, &Config{
		Groups: []GroupConfig{{
			Name: "tenant", Key: "tenant.id", Members: []string{"tenant.tier", "actor"}, Hold: true,
			Anonymous: AnonymousConfig{Attribute: "actor", Value: "nobody"},
		}},
		Upward: upwardOff, Remote: remoteList, RemoteServices: [][]string{{"api", "connector"}},
		Quiet: 2 * time.Second, Wait: 3 * time.Second, TTL: 4 * time.Second,
		MaxHeldBytes: 5, MaxTraces: 6, MaxSpans: 8, MaxSpansPerTrace: 7, KeepAttribute: "ticket",
		Storage: &storageID,
	}, cfg)
}

func manyNames(n int) (names []any) {
	for i := range n {
		names = append(names, fmt.Sprintf("attribute.%d", i))
	}
	return names
}

// As many attributes as are allowed fit into the machine word, the marks included.
func TestAsManyAttributesAsAreAllowed(t *testing.T) {
	cfg, err := unmarshal(confmap.NewFromStringMap(map[string]any{"groups": []any{map[string]any{
		"name": "g", "key": "key", "members": manyNames(maxAttributes - 1),
	}}}))
	require.NoError(t, err)
	v := newVocabulary(cfg)
	assert.Equal(t, maxAttributes, bits.OnesCount64(v.groups[0].mask))
	assert.NotZero(t, v.keep)
	assert.Zero(t, v.groups[0].mask&(v.keep|1<<v.edge|1<<v.scope))
}

// Every refusal names the key that the operator typed.
func TestRefusals(t *testing.T) {
	group := func(change map[string]any) map[string]any {
		g := map[string]any{"name": "org", "key": "saas.org.id", "members": []any{"user.hash"}}
		for key, value := range change {
			g[key] = value
		}
		return map[string]any{"groups": []any{g}}
	}
	for name, test := range map[string]struct {
		config map[string]any
		says   string
	}{
		"unknown key":         {map[string]any{"waits": "1s"}, "waits"},
		"no groups":           {map[string]any{"groups": []any{}}, "`groups` is empty"},
		"group without name":  {group(map[string]any{"name": ""}), "`groups::0::name` is empty"},
		"group without key":   {group(map[string]any{"key": ""}), "`groups::0::key` is empty"},
		"empty member":        {group(map[string]any{"members": []any{""}}), "`groups::0::members` has an empty entry"},
		"attribute twice":     {group(map[string]any{"members": []any{"saas.org.id"}}), `attribute "saas.org.id" is already in group "org"`},
		"a mark as member":    {group(map[string]any{"members": []any{"saas.identity.edge"}}), `"saas.identity.edge" is already in group`},
		"anonymous elsewhere": {group(map[string]any{"anonymous": map[string]any{"attribute": "x", "value": "y"}}), "`groups::0::anonymous`"},
		"name twice":          {map[string]any{"groups": []any{map[string]any{"name": "a", "key": "x"}, map[string]any{"name": "a", "key": "y"}}}, "`groups::1::name` \"a\" is taken"},
		"too many groups":     {map[string]any{"groups": []any{map[string]any{}, map[string]any{}, map[string]any{}, map[string]any{}, map[string]any{}}}, "`groups` has more than 3 entries"},
		"too many attributes": {group(map[string]any{"members": manyNames(61)}), "`groups` name more than 60 attributes together: remove some from `members` (there are 62)"},
		"keeps an edge":       {map[string]any{"keep_attribute": "saas.identity.edge"}, "`keep_attribute` must not be \"saas.identity.edge\""},
		"keeps a scope":       {map[string]any{"keep_attribute": "saas.identity.scope"}, "`keep_attribute` must not be \"saas.identity.scope\""},
		"keeps what is kept":  {map[string]any{"keep_attribute": "saas.sampling.keep"}, "`keep_attribute` must not be \"saas.sampling.keep\""},
		"upward else":         {map[string]any{"upward": "up"}, "`upward` must be `off` or `local`, not \"up\""},
		"remote else":         {map[string]any{"remote": "some"}, "`remote` must be"},
		"list missing":        {map[string]any{"remote": "list"}, "`remote: list` needs `remote_services`"},
		"list unused":         {map[string]any{"remote_services": []any{[]any{"a", "b"}}}, "`remote_services` is only read with `remote: list`"},
		"list of one":         {map[string]any{"remote": "list", "remote_services": []any{[]any{"a"}}}, "`remote_services::0`"},
		"quiet zero":          {map[string]any{"quiet": "0s"}, "`quiet` must be greater than zero, not 0s"},
		"wait negative":       {map[string]any{"wait": "-1s"}, "`wait` must be greater than zero, not -1s"},
		"ttl zero":            {map[string]any{"ttl": 0}, "`ttl` must be greater than zero, not 0s"},
		"bytes zero":          {map[string]any{"max_held_bytes": 0}, "`max_held_bytes` must be greater than zero, not 0"},
		"traces negative":     {map[string]any{"max_traces": -1}, "`max_traces` must be greater than zero, not -1"},
		"all spans zero":      {map[string]any{"max_spans": 0}, "`max_spans` must be greater than zero, not 0"},
		"more than all spans": {map[string]any{"max_spans": 5}, "`max_spans_per_trace` is more than `max_spans`: lower it or raise `max_spans` (10000 over 5)"},
		"spans zero":          {map[string]any{"max_spans_per_trace": 0}, "`max_spans_per_trace` must be greater than zero, not 0"},
		"ttl too long":        {map[string]any{"ttl": "25h"}, "`ttl` must be at most 24h0m0s, not 25h0m0s"},
		"traces too many":     {map[string]any{"max_traces": 10_000_001}, "`max_traces` must be at most 10000000, not 10000001"},
		"a trace too large":   {map[string]any{"max_spans": 3_000_000, "max_spans_per_trace": 2_097_151}, "`max_spans_per_trace` must be at most 2097150, not 2097151"},
		"spans too many":      {map[string]any{"max_spans": 1_000_000_001}, "`max_spans` must be at most 1000000000, not 1000000001"},
		"quiet over wait":     {map[string]any{"quiet": "11s"}, "`quiet` is longer than `wait`: lower `quiet` or raise `wait` (11s over 10s)"},
		"wait over ttl":       {map[string]any{"wait": "2m"}, "`wait` is longer than `ttl`: lower `wait` or raise `ttl` (2m0s over 1m0s)"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := unmarshal(confmap.NewFromStringMap(test.config))
			require.ErrorContains(t, err, test.says)
		})
	}
}
