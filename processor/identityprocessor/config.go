package identityprocessor

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.opentelemetry.io/collector/component"

	"github.com/otel-shim/otel-shim/processor/identityprocessor/internal/semconv"
)

// Values of `upward`.
const (
	upwardOff   = "off"
	upwardLocal = "local"
)

// Values of `remote`.
const (
	remoteAll           = "all"
	remoteSameNamespace = "same_namespace"
	remoteList          = "list"
)

// Limits that keep a span's record small: groups are indexed in fixed arrays, their attributes in
// one machine word, service lists in another.
const (
	maxGroups     = 3
	maxAttributes = 60
	maxLists      = 64
)

// Bounds of the limits themselves: `max_traces` sizes a table that is made at the start, nodes are
// numbered in linkBits, and seconds are counted in 32.
const (
	mostTraces = 10_000_000
	mostLinked = noLink - 1
	mostSpans  = 1_000_000_000
	longestTTL = 24 * time.Hour
)

var (
	errNoGroups       = errors.New("`groups` is empty: leave it out for the groups org and request, or name at least one")
	errTooManyGroups  = fmt.Errorf("`groups` has more than %d entries: remove some", maxGroups)
	errTooManyMembers = fmt.Errorf("`groups` name more than %d attributes together: remove some from `members`", maxAttributes)
	errUpward         = errors.New("`upward` must be `off` or `local`")
	errRemote         = errors.New("`remote` must be `all`, `same_namespace` or `list`")
	errListMissing    = errors.New("`remote: list` needs `remote_services`: give at least one list of service names")
	errListUnused     = errors.New("`remote_services` is only read with `remote: list`: set that, or remove the list")
	errTooManyLists   = fmt.Errorf("`remote_services` has more than %d lists: merge some", maxLists)
	errQuietOverWait  = errors.New("`quiet` is longer than `wait`: lower `quiet` or raise `wait`")
	errSpansOverAll   = errors.New("`max_spans_per_trace` is more than `max_spans`: lower it or raise `max_spans`")
	errWaitOverTTL    = errors.New("`wait` is longer than `ttl`: lower `wait` or raise `ttl`")
)

// Config of the identity processor.
type Config struct {
	// Groups are the attributes that travel together. Default: `org` (held) and `request` (not
	// held). A list given here replaces the default as a whole.
	Groups []GroupConfig `mapstructure:"groups"`

	// Upward says whether a span may take identity from its descendants: `off`, or `local`
	// (default), which infers within one process and for the CLIENT span that called it, once the
	// trace is quiet.
	Upward string `mapstructure:"upward"`

	// Remote says between which services identity is inherited: `all`, `same_namespace` (default:
	// both have the same, non-empty `service.namespace`) or `list`. A service always shares with
	// other instances of itself.
	Remote string `mapstructure:"remote"`

	// RemoteServices are lists of `service.name`s; identity is inherited between the services of
	// one list. Read with `remote: list` only.
	RemoteServices [][]string `mapstructure:"remote_services"`

	// Quiet is how long no span of a trace must have arrived before its held spans leave without
	// identity. Default 6s.
	Quiet time.Duration `mapstructure:"quiet"`

	// Wait is the longest time one span is held. Default 10s.
	Wait time.Duration `mapstructure:"wait"`

	// TTL is how long a trace is remembered, from its first span or from its newest span with
	// identity of its own. Default 60s.
	TTL time.Duration `mapstructure:"ttl"`

	// MaxHeldBytes bounds what held spans take on the heap. Over it the oldest leave without identity;
	// of one trace with more than a quarter of it, all do. Default 192 MiB.
	MaxHeldBytes int64 `mapstructure:"max_held_bytes"`

	// MaxTraces bounds the remembered traces; over it the oldest is forgotten. Default 100000.
	MaxTraces int `mapstructure:"max_traces"`

	// MaxSpans bounds the remembered spans of all traces; over it the oldest trace is forgotten.
	// A remembered span costs at most 100 bytes. Default 1000000.
	MaxSpans int `mapstructure:"max_spans"`

	// MaxSpansPerTrace bounds what is remembered of one trace; over it the trace is forgotten and
	// remembered anew. Default 10000.
	MaxSpansPerTrace int `mapstructure:"max_spans_per_trace"`

	// Storage is a storage extension, as `file_storage`, in which held spans survive the process.
	// Default none: a crash loses them.
	Storage *component.ID `mapstructure:"storage"`

	// KeepAttribute is the attribute whose presence marks a span, and every later span of its trace
	// for at least `ttl`, with `saas.sampling.keep=true`. Empty marks none. Default `audit.record.id`.
	KeepAttribute string `mapstructure:"keep_attribute"`

	// Forbids literals without field names.
	_ struct{}
}

// GroupConfig is one group of identity attributes.
type GroupConfig struct {
	// Name appears in the processor's own metrics.
	Name string `mapstructure:"name"`

	// Key is the attribute without which a span counts as unidentified.
	Key string `mapstructure:"key"`

	// Members are the attributes that are completed together with the key.
	Members []string `mapstructure:"members"`

	// Anonymous names a member and the value of it that is an identity without a key. Optional.
	Anonymous AnonymousConfig `mapstructure:"anonymous"`

	// Hold says whether spans without this group are held until it is known.
	Hold bool `mapstructure:"hold"`

	_ struct{}
}

// AnonymousConfig is the attribute and value that say "there is no key, and none will come".
type AnonymousConfig struct {
	Attribute string `mapstructure:"attribute"`
	Value     string `mapstructure:"value"`

	_ struct{}
}

var _ component.Config = (*Config)(nil)

func createDefaultConfig() component.Config {
	return &Config{
		Groups: []GroupConfig{
			{
				Name:      "org",
				Key:       semconv.SaasOrgID,
				Members:   slices.Clone(semconv.GroupOrg),
				Anonymous: AnonymousConfig{Attribute: semconv.SaasActorType, Value: semconv.SaasActorTypeAnonymous},
				Hold:      true,
			},
			{Name: "request", Key: semconv.SaasRequestID, Members: slices.Clone(semconv.GroupRequest)},
		},
		Upward:           upwardLocal,
		Remote:           remoteSameNamespace,
		Quiet:            6 * time.Second,
		Wait:             10 * time.Second,
		TTL:              time.Minute,
		MaxHeldBytes:     192 << 20,
		MaxTraces:        100_000,
		MaxSpans:         1_000_000,
		MaxSpansPerTrace: 10_000,
		KeepAttribute:    semconv.AuditRecordID,
	}
}

// Validate names every key that is wrong, and what to do about it.
func (cfg *Config) Validate() error {
	return errors.Join(cfg.validateGroups(), cfg.validateKeep(), cfg.validateUpward(), cfg.validateRemote(), cfg.validateBounds())
}

func (cfg *Config) validateKeep() error {
	if slices.Contains(ownMarks, cfg.KeepAttribute) {
		return fmt.Errorf("`keep_attribute` must not be %q, which is a mark of this processor itself: name another attribute", cfg.KeepAttribute)
	}
	return nil
}

func (cfg *Config) validateUpward() error {
	switch cfg.Upward {
	case upwardOff, upwardLocal:
		return nil
	}
	return fmt.Errorf("%w, not %q", errUpward, cfg.Upward)
}

func (cfg *Config) validateRemote() error {
	switch cfg.Remote {
	case remoteAll, remoteSameNamespace:
		if len(cfg.RemoteServices) > 0 {
			return errListUnused
		}
		return nil
	case remoteList:
		return cfg.validateLists()
	}
	return fmt.Errorf("%w, not %q", errRemote, cfg.Remote)
}

func (cfg *Config) validateLists() error {
	if len(cfg.RemoteServices) == 0 {
		return errListMissing
	}
	if len(cfg.RemoteServices) > maxLists {
		return fmt.Errorf("%w (there are %d)", errTooManyLists, len(cfg.RemoteServices))
	}
	for i, list := range cfg.RemoteServices {
		if len(list) < 2 || slices.Contains(list, "") {
			return fmt.Errorf("`remote_services::%d` must name at least two services, none of them empty", i)
		}
	}
	return nil
}

func (cfg *Config) validateBounds() error {
	errs := []error{
		bounded("quiet", cfg.Quiet, 0),
		bounded("wait", cfg.Wait, 0),
		bounded("ttl", cfg.TTL, longestTTL),
		bounded("max_held_bytes", cfg.MaxHeldBytes, 0),
		bounded("max_traces", cfg.MaxTraces, mostTraces),
		bounded("max_spans", cfg.MaxSpans, mostSpans),
		bounded("max_spans_per_trace", cfg.MaxSpansPerTrace, mostLinked),
	}
	if cfg.Quiet > cfg.Wait {
		errs = append(errs, fmt.Errorf("%w (%v over %v)", errQuietOverWait, cfg.Quiet, cfg.Wait))
	}
	if cfg.MaxSpansPerTrace > cfg.MaxSpans {
		errs = append(errs, fmt.Errorf("%w (%d over %d)", errSpansOverAll, cfg.MaxSpansPerTrace, cfg.MaxSpans))
	}
	if cfg.Wait > cfg.TTL {
		errs = append(errs, fmt.Errorf("%w (%v over %v)", errWaitOverTTL, cfg.Wait, cfg.TTL))
	}
	return errors.Join(errs...)
}

// bounded checks that a bound is greater than zero, and not over most, where that is given.
func bounded[N time.Duration | int | int64](key string, value, most N) error {
	switch {
	case value <= 0:
		return fmt.Errorf("`%s` must be greater than zero, not %v", key, value)
	case most > 0 && value > most:
		return fmt.Errorf("`%s` must be at most %v, not %v", key, most, value)
	}
	return nil
}

func (cfg *Config) validateGroups() error {
	if len(cfg.Groups) == 0 {
		return errNoGroups
	}
	if len(cfg.Groups) > maxGroups {
		return fmt.Errorf("%w (there are %d)", errTooManyGroups, len(cfg.Groups))
	}
	var errs []error
	names, owners := map[string]bool{}, cfg.reservedAttributes()
	for i := range cfg.Groups {
		errs = append(errs, cfg.Groups[i].validate(i, names), cfg.Groups[i].claim(i, owners))
	}
	if named := len(owners) - len(cfg.reservedAttributes()); named > maxAttributes {
		errs = append(errs, fmt.Errorf("%w (there are %d)", errTooManyMembers, named))
	}
	return errors.Join(errs...)
}

// validate checks one group by itself, and that its name is not taken.
func (g *GroupConfig) validate(i int, names map[string]bool) error {
	switch {
	case g.Name == "":
		return fmt.Errorf("`groups::%d::name` is empty: name the group", i)
	case names[g.Name]:
		return fmt.Errorf("`groups::%d::name` %q is taken: choose another", i, g.Name)
	case g.Key == "":
		return fmt.Errorf("`groups::%d::key` is empty: name the attribute that identifies the group", i)
	}
	names[g.Name] = true
	return g.Anonymous.validate(i, g.Members)
}

func (a *AnonymousConfig) validate(i int, members []string) error {
	if a.Attribute == "" && a.Value == "" {
		return nil
	}
	if a.Value == "" || !slices.Contains(members, a.Attribute) {
		return fmt.Errorf("`groups::%d::anonymous` needs an `attribute` out of `members` and a `value`", i)
	}
	return nil
}

// claim checks that no attribute is in two groups or twice in one.
func (g *GroupConfig) claim(i int, owners map[string]string) error {
	for _, name := range append([]string{g.Key}, g.Members...) {
		if name == "" {
			return fmt.Errorf("`groups::%d::members` has an empty entry: remove it", i)
		}
		if owner, taken := owners[name]; taken {
			return fmt.Errorf("`groups::%d`: attribute %q is already in group %q: remove it from one", i, name, owner)
		}
		owners[name] = g.Name
	}
	return nil
}

// ownMarks are the attributes that the processor itself reads and writes.
var ownMarks = []string{semconv.SaasIdentityEdge, semconv.SaasIdentityScope, semconv.SaasIdentityOrigin, semconv.SaasSamplingKeep}

// reservedAttributes belong to no group.
func (cfg *Config) reservedAttributes() map[string]string {
	const owner = "identity marks"
	reserved := map[string]string{}
	for _, name := range append([]string{cfg.KeepAttribute}, ownMarks...) {
		if name != "" {
			reserved[name] = owner
		}
	}
	return reserved
}
