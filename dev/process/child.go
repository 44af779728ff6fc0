package process

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Child is a program that ends together with this process, however this process ends.
type Child struct {
	Process *os.Process
	Done    chan struct{} // closed when the program has ended
	Err     error         // valid once Done is closed; nil for exit status 0
}

// StartChild starts a program. It receives SIGTERM if this process is killed.
func StartChild(cmd *exec.Cmd) (*Child, error) {
	// In its own group, the program does not receive Ctrl-C: this process stops it in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	c := &Child{Done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig is sent when the thread that started the child ends
		defer close(c.Done)
		err := cmd.Start()
		c.Process = cmd.Process
		started <- err
		if err == nil {
			c.Err = cmd.Wait()
		}
	}()
	return c, <-started
}

// Stop ends the program with SIGTERM, or with SIGKILL after a timeout.
func (c *Child) Stop(timeout time.Duration) error {
	_ = c.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-c.Done:
		return c.Err
	case <-time.After(timeout):
		c.Kill()
		return errors.New("it was killed, because it still ran " + timeout.String() + " after SIGTERM")
	}
}

// Kill ends the program with SIGKILL.
func (c *Child) Kill() {
	_ = c.Process.Kill()
	<-c.Done
}
