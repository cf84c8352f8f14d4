package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const golden = "testdata/openapi.json"

// TestSpec holds the API to its record: /v1 only grows, so a removed or renamed path, field or code fails here. What was
// added on purpose is written with: go test ./node/api -run TestSpec -update
func TestSpec(t *testing.T) {
	got, err := Spec("v1")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the API differs from %s (-recorded +now):\n%s", golden, cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")))
	}
}

var update = flag.Bool("update", false, "write golden files")

// TestSpecIsOurs checks what the library would do if it were not told otherwise, and what our rules ask for.
func TestSpecIsOurs(t *testing.T) {
	b, err := Spec("v1")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"$schema", "ErrorModel", "/docs", "/schemas/{"} {
		if bytes.Contains(b, []byte(word)) {
			t.Errorf("the specification holds %s", word)
		}
	}
	var spec struct {
		OpenAPI string                                `json:"openapi"`
		Paths   map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(b, &spec); err != nil {
		t.Fatal(err)
	}
	if spec.OpenAPI != "3.1.0" {
		t.Errorf("OpenAPI %s, want 3.1.0", spec.OpenAPI)
	}
	ids := map[string]string{}
	for path, methods := range spec.Paths {
		if !strings.HasPrefix(path, "/v1/") {
			t.Errorf("path %s is not under /v1", path)
		}
		for method, raw := range methods {
			var op struct {
				OperationID string
				Summary     string
				Parameters  []struct{ Name string }
				Responses   map[string]json.RawMessage
			}
			if err := json.Unmarshal(raw, &op); err != nil {
				t.Fatal(err)
			}
			if other, twice := ids[op.OperationID]; twice {
				t.Errorf("%s %s and %s share the id %s", method, path, other, op.OperationID)
			}
			ids[op.OperationID] = method + " " + path
			if op.Summary == "" {
				t.Errorf("%s %s has no summary", method, path)
			}
			if !bytes.Contains(op.Responses["default"], []byte("application/problem+json")) {
				t.Errorf("%s %s: failures are not problems", method, path)
			}
			keys := 0
			for _, p := range op.Parameters {
				if p.Name == keyHeader {
					keys++
				}
			}
			if want := map[bool]int{true: 1}[method == "post"]; keys != want {
				t.Errorf("%s %s takes an %s %d times, want %d", method, path, keyHeader, keys, want)
			}
		}
	}
}
