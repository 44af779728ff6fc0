package monitoring

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// ErrMissing is wrapped by each error about a missing program. The error names the remedy.
var ErrMissing = errors.New("not installed")

// Program is an installed program.
type Program struct {
	Path string
	Home string // directory of conf and public of Grafana; empty for other programs

	args []string // come first
}

// FindPrometheus looks in PATH.
func FindPrometheus() (Program, error) {
	return inPath("Prometheus", "apt-get install prometheus, or extract a release of https://prometheus.io/download into a directory of PATH", "prometheus")
}

// FindAlertmanager looks in PATH. Debian names the program differently.
func FindAlertmanager() (Program, error) {
	return inPath("Alertmanager", "apt-get install prometheus-alertmanager, or extract a release of https://prometheus.io/download into a directory of PATH",
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
