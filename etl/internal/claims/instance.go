package claims

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// newInstanceID names this process for one epoch: host~machine~pid~random. Where the machine is known, another process
// there finds out at once that this one has ended.
func newInstanceID() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s~%s~%d~%s", strings.ReplaceAll(host, "~", "-"), machine(), os.Getpid(), rand.Text()[:6])
}

// machine identifies the scope in which a process number is unique: this boot of this kernel, and its namespace of
// processes. It is empty where that is unknown.
func machine() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	h := fnv.New64a()
	_, _ = h.Write(boot)
	_, _ = h.Write([]byte(namespace))
	return strconv.FormatUint(h.Sum64(), 36)
}

// exited reports whether the process of an instance is known to have ended: it ran on this machine and does not any more.
func exited(instanceID string) bool {
	parts := strings.Split(instanceID, "~")
	if len(parts) != 4 || parts[1] == "" || parts[1] != machine() {
		return false
	}
	pid, err := strconv.Atoi(parts[2])
	if err != nil || pid == os.Getpid() { // an earlier epoch of this process, or another instance in a test
		return false
	}
	return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}
