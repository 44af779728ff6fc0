package process

import (
	"strings"
	"testing"
)

func TestFirstErrorOfALog(t *testing.T) {
	for name, tc := range map[string]struct{ log, want string }{
		"a JVM that cannot start": {
			"Error occurred during initialization of VM\nToo small maximum heap\n",
			"Error occurred during initialization of VM\nToo small maximum heap",
		},
		"an exception among routine messages": {
			"INFO  [main] loading\nERROR [main] CassandraDaemon - Exception\njava.lang.RuntimeException: no peers\n" +
				"\tat org.apache.Gossiper.run(Gossiper.java:1)\n\t... 3 common frames omitted\nINFO  [hook] shutting down\n" +
				"Caused by: java.net.BindException: in use\n",
			"ERROR [main] CassandraDaemon - Exception\njava.lang.RuntimeException: no peers\nCaused by: java.net.BindException: in use",
		},
		"no error": {
			strings.Repeat("INFO  [main] before\n", 20) + "INFO  [main] last\n",
			strings.Repeat("INFO  [main] before\n", 11) + "INFO  [main] last",
		},
		"empty": {"", "(the log is empty)"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := excerpt([]byte(tc.log)); got != tc.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tc.want)
			}
		})
	}
}
