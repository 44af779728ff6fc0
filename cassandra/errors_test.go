package cassandra

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/gocql/gocql"
	"github.com/stretchr/testify/require"
)

// requestError is an error that a node returned.
type requestError struct{ code int }

func (e requestError) Code() int       { return e.code }
func (e requestError) Message() string { return "from the node" }
func (e requestError) Error() string   { return fmt.Sprintf("code %#x", e.code) }

func TestReasonsAndAdviceOfErrors(t *testing.T) {
	for _, c := range []struct {
		err    error
		reason Reason
		advice Advice
	}{
		{nil, ReasonNone, GiveUp},
		{context.Canceled, ReasonCanceled, GiveUp},
		{context.DeadlineExceeded, ReasonCanceled, GiveUp},
		{gocql.ErrNotFound, ReasonNotFound, GiveUp},
		{gocql.ErrTimeoutNoResponse, ReasonTimeout, Retry},
		{gocql.ErrNoConnections, ReasonNoHosts, Wait},
		{gocql.ErrUnavailable, ReasonNoHosts, Wait},
		{gocql.ErrConnectionClosed, ReasonConnection, Retry},
		{io.ErrUnexpectedEOF, ReasonConnection, Retry},
		{&net.OpError{Op: "read", Err: errors.New("reset")}, ReasonConnection, Retry},
		{gocql.ErrNoStreams, ReasonOverloaded, Retry},
		{requestError{gocql.ErrCodeUnavailable}, ReasonUnavailable, Wait},
		{requestError{gocql.ErrCodeOverloaded}, ReasonOverloaded, Retry},
		{requestError{gocql.ErrCodeWriteTimeout}, ReasonWriteTimeout, Retry},
		{requestError{gocql.ErrCodeReadTimeout}, ReasonReadTimeout, Retry},
		{requestError{gocql.ErrCodeWriteFailure}, ReasonFailure, Retry},
		{requestError{gocql.ErrCodeReadFailure}, ReasonFailure, Retry},
		{requestError{gocql.ErrCodeBootstrapping}, ReasonServer, Retry},
		{requestError{gocql.ErrCodeCredentials}, ReasonUnauthorized, GiveUp},
		{requestError{gocql.ErrCodeUnauthorized}, ReasonUnauthorized, GiveUp},
		{requestError{gocql.ErrCodeSyntax}, ReasonInvalid, GiveUp},
		{requestError{gocql.ErrCodeInvalid}, ReasonInvalid, GiveUp},
		{requestError{gocql.ErrCodeUnprepared}, ReasonOther, GiveUp},
		{errors.New("unknown"), ReasonOther, GiveUp},
	} {
		require.Equal(t, c.reason, ReasonOf(c.err), "%v", c.err)
		require.Equal(t, c.advice, c.reason.Advice(), "%v", c.err)
		if c.err == nil {
			require.NoError(t, opError("write x", c.err))
			continue
		}
		require.Contains(t, Reasons, c.reason)
		wrapped := fmt.Errorf("load: %w", opError("write x", c.err))
		require.Equal(t, c.reason, ReasonOf(wrapped))
		require.ErrorContains(t, wrapped, "load: write x: "+string(c.reason)+": ")
	}
	require.ErrorIs(t, opError("read x", gocql.ErrNotFound), ErrNotFound)
}

func TestTooFewReplicas(t *testing.T) {
	for _, reason := range Reasons {
		want := reason == ReasonUnavailable || reason == ReasonReadTimeout || reason == ReasonFailure
		require.Equal(t, want, reason.TooFewReplicas(), reason)
	}
}
