package store

import "os"

// nightly scales the long loops: 1 in the gate.
var nightly = func() int {
	if os.Getenv("KINLOOM_NIGHTLY") == "1" {
		return 20
	}
	return 1
}()

// strideOf is the step over the calls that are made to fail: every one for the
// layer that the account rests on and in the nightly run, every third for the
// other in the gate.
func strideOf(block bool) int {
	if block || nightly > 1 {
		return 1
	}
	return 3
}
