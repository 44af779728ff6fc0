package monitoring

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// ErrMissing is what every error about a program that this machine has not got wraps. The error says how to get it.
var ErrMissing = errors.New("not installed")

// Program is a program that can be run.
type Program struct {
	Path string
	Home string // of Grafana: the folder of its conf and public; empty for others

	args []string // before all others
}

// FindPrometheus looks in PATH.
func FindPrometheus() (Program, error) {
	return inPath("Prometheus", "apt-get install prometheus, or unpack a release of https://prometheus.io/download into a folder of PATH", "prometheus")
}

// FindAlertmanager looks in PATH, where the systems' packages call it differently.
func FindAlertmanager() (Program, error) {
	return inPath("Alertmanager", "apt-get install prometheus-alertmanager, or unpack a release of https://prometheus.io/download into a folder of PATH",
		"alertmanager", "prometheus-alertmanager")
}

func inPath(name, remedy string, programs ...string) (Program, error) {
	for _, p := range programs {
		if path, err := exec.LookPath(p); err == nil {
			return Program{Path: path}, nil
		}
	}
	return Program{}, fmt.Errorf("%s is %w: PATH has no %s: %s", name, ErrMissing, strings.Join(programs, " and no "), remedy)
}
