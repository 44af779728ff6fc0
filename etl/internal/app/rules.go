package app

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/fleettracing/fleet-tracing/etl/internal/alerting"
	alertrules "github.com/fleettracing/fleet-tracing/etl/internal/alerting/rules"
	"github.com/fleettracing/fleet-tracing/etl/internal/config"
	"github.com/fleettracing/fleet-tracing/etl/internal/geofence"
	"github.com/fleettracing/fleet-tracing/etl/internal/reload"
)

// rules holds the alert rules and geofences in force. They change on a reload.
type rules struct {
	config  *config.Config
	current atomic.Pointer[ruleset]
}

// ruleset is the contents of ETL_ALERT_RULES_FILE and ETL_GEOFENCES_FILES.
type ruleset struct {
	geofences   []geofence.Geofence
	index       *geofence.Index // nil without geofence files
	engine      *alerting.Engine
	fingerprint string // of both, stored with the state of each device
}

// newRules reads the files of the settings.
func newRules(c *config.Config) (*rules, error) {
	r := &rules{config: c}
	set, err := r.load()
	if err != nil {
		return nil, err
	}
	r.current.Store(set)
	return r, nil
}

// target reloads the files. It calls applied once the new contents are in force.
func (r *rules) target(applied func()) reload.Target {
	return reload.Target{Name: "alert rules and geofences", Files: r.files, Load: func() (func(), error) {
		set, err := r.load()
		if err != nil {
			return nil, err
		}
		return func() { r.current.Store(set); applied() }, nil
	}}
}

// geofenceAt returns the smallest geofence of a fleet that contains a position.
func (r *rules) geofenceAt(fleet string, lat, lon float64) (name string, ok bool) {
	if index := r.current.Load().index; index != nil {
		return index.Smallest(fleet, lat, lon)
	}
	return "", false
}

// files returns the paths of all files, each once.
func (r *rules) files() ([]string, error) {
	files, err := r.geofenceFiles()
	if r.config.AlertRulesFile != "" {
		files = append(files, r.config.AlertRulesFile)
	}
	return files, err
}

func (r *rules) geofenceFiles() ([]string, error) {
	var files []string
	for _, pattern := range r.config.GeofencesFiles {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("ETL_GEOFENCES_FILES %q: %w", pattern, err)
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("ETL_GEOFENCES_FILES %q: no file matches", pattern)
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

// load reads and checks all files. The error names each file that is wrong.
func (r *rules) load() (*ruleset, error) {
	set := &ruleset{}
	geofencesFingerprint, err := r.loadGeofences(set)
	if err != nil {
		return nil, fmt.Errorf("ETL_GEOFENCES_FILES: %w", err)
	}
	alertRules := alertrules.Default()
	if file := r.config.AlertRulesFile; file != "" {
		text, err := os.ReadFile(file)
		if err == nil {
			alertRules, err = alertrules.Parse(file, text)
		}
		if err != nil {
			return nil, fmt.Errorf("ETL_ALERT_RULES_FILE: %w", err)
		}
	}
	set.fingerprint = alertRules.Fingerprint() + geofencesFingerprint
	if set.index == nil {
		set.engine = alerting.New(alertRules, nil)
	} else {
		set.engine = alerting.New(alertRules, identifiedGeofences{set.index, geofencesFingerprint})
	}
	return set, nil
}

// loadGeofences reads the geofence files into set and returns a fingerprint of their contents.
func (r *rules) loadGeofences(set *ruleset) (fingerprint string, err error) {
	files, err := r.geofenceFiles()
	if err != nil || len(files) == 0 {
		return "", err
	}
	h := sha256.New()
	var failed []error
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		_, _ = h.Write(text) // a hash accepts everything
		geofences, err := geofence.Parse(file, text)
		failed = append(failed, err)
		set.geofences = append(set.geofences, geofences...)
	}
	if err := errors.Join(failed...); err != nil {
		return "", err
	}
	if set.index, err = geofence.NewIndex(set.geofences); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// identifiedGeofences lets the alert engine recognize whether the geofences are the ones of a stored state.
type identifiedGeofences struct {
	*geofence.Index
	fingerprint string
}

// Fingerprint identifies the geofences.
func (g identifiedGeofences) Fingerprint() string { return g.fingerprint }
