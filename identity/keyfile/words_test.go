package keyfile

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestWordList: the list is the English one of BIP-0039, byte for byte.
func TestWordList(t *testing.T) {
	const want = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"
	if sum := sha256.Sum256([]byte(english)); hex.EncodeToString(sum[:]) != want {
		t.Errorf("SHA-256 of the word list is %x, want %s", sum, want)
	}
	l := wordList()
	if len(l) != WordsTotal || !slices.IsSorted(l) || WordAt(0) != "abandon" || WordAt(2047) != "zoo" {
		t.Errorf("%d words from %s to %s, want 2048 in order from abandon to zoo", len(l), WordAt(0), WordAt(len(l)-1))
	}
	prefixes := map[string]bool{}
	for _, w := range l {
		prefixes[w[:min(4, len(w))]] = true
	}
	if len(prefixes) != WordsTotal {
		t.Errorf("%d different first four letters, want 2048", len(prefixes))
	}
}

// standardWords are the 256-bit test vectors that BIP-0039 links to.
func standardWords() map[string]string {
	return map[string]string{
		strings.Repeat("00", 32): strings.Repeat("abandon ", 23) + "art",
		strings.Repeat("7f", 32): strings.Repeat("legal winner thank year wave sausage worth useful ", 2) + "legal winner thank year wave sausage worth title",
		strings.Repeat("80", 32): strings.Repeat("letter advice cage absurd amount doctor acoustic avoid ", 2) + "letter advice cage absurd amount doctor acoustic bless",
		strings.Repeat("ff", 32): strings.Repeat("zoo ", 23) + "vote",
		"3e141609b97933b66a060dcddc71fad1d91677db872031e85f4c015c5e7e8982": "dignity pass list indicate nasty swamp pool script soccer toe leaf photo multiply desk host tomato cradle drill spread actor shine dismiss champion exotic",
		"2c85efc7f24ee4573d2b81a6ec66cee209b2dcbd09d8eddc51e0215b0b68e416": "clutch control vehicle tonight unusual clog visa ice plunge glimpse recipe series open hour vintage deposit universe tip job dress radar refuse motion taste",
		"15da872c95a13dd738fbf50e427583ad61f18fd99f628c417a61cf8343c90419": "beyond stage sleep clip because twist token leaf atom beauty genius food business side grid unable middle armed observe pair crouch tonight away coconut",
	}
}

func TestStandardWords(t *testing.T) {
	for seed, words := range standardWords() {
		b, err := hex.DecodeString(seed)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(Words([32]byte(b)), " "); got != words {
			t.Errorf("words of %s: got %s, want %s", seed, got, words)
		}
		for _, text := range []string{words, strings.ToUpper(words), "\n " + strings.ReplaceAll(words, " ", "\t\r\n ") + "\n"} {
			if got, err := ParseWords(text); err != nil || hex.EncodeToString(got[:]) != seed {
				t.Errorf("ParseWords(%q) = %x, %v, want %s", text, got, err, seed)
			}
		}
	}
}

// TestWrongWords is H109: the error says which word, or that the words do not
// belong together.
func TestWrongWords(t *testing.T) {
	good := Words(fill("root seed "))
	with := func(i int, w string) string {
		l := slices.Clone(good)
		l[i] = w
		return strings.Join(l, " ")
	}
	swapped := slices.Clone(good)
	swapped[3], swapped[4] = swapped[4], swapped[3]
	for _, tt := range []struct {
		name, text string
		position   int
		want       error
	}{
		{"nothing", "", 0, ErrWordCount},
		{"23 words", strings.Join(good[1:], " "), 0, ErrWordCount},
		{"25 words", strings.Join(append(slices.Clone(good), good[0]), " "), 0, ErrWordCount},
		{"12 words", strings.Join(good[:12], " "), 0, ErrWordCount},
		{"a long text", strings.Repeat("abandon ", 1000), 0, ErrWordCount},
		{"first word misspelt", with(0, "abandn"), 1, nil},
		{"last word misspelt", with(23, "zooo"), 24, nil},
		{"four letters of a word", with(9, good[9][:3]), 10, nil},
		{"German", with(4, "zuckerwatte"), 5, nil},
		{"French", with(5, "académie"), 6, nil},
		{"Spanish", strings.Repeat("ábaco ", 24), 1, nil},
		{"Japanese", with(6, "あいこくしん"), 7, nil},
		{"Chinese", strings.Repeat("的 ", 24), 1, nil},
		{"numbered", "1. " + strings.Join(good, " 2. "), 1, nil},
		{"commas", strings.Join(good, ", "), 1, nil},
		{"control characters", with(7, "a\x1b[31mb"), 8, nil},
		{"another word of the list", with(8, "zebra"), 0, ErrWordChecksum},
		{"two swapped", strings.Join(swapped, " "), 0, ErrWordChecksum},
	} {
		root, err := ParseWords(tt.text)
		if err == nil || root != [32]byte{} {
			t.Errorf("%s: accepted as %x", tt.name, root)
			continue
		}
		if tt.want != nil {
			wantErr(t, tt.name, err, tt.want)
			continue
		}
		e, ok := errors.AsType[ErrWord](err)
		if !ok || e.Position != tt.position || len(e.Word) > 16 || !strings.Contains(err.Error(), fmt.Sprintf("word %d,", tt.position)) {
			t.Errorf("%s: %v, want word %d named", tt.name, err, tt.position)
		}
		if strings.ContainsRune(err.Error(), '\x1b') {
			t.Errorf("%s: control characters come through", tt.name)
		}
	}
	if _, err := ParseWords(strings.Repeat("abandon ", 24)); !errors.Is(err, ErrWordChecksum) {
		t.Errorf("24 times abandon: %v", err)
	}
}

// TestChecksumBits: changes within the list pass once in about 256 times, as
// eight bits of checksum say.
func TestChecksumBits(t *testing.T) {
	good := Words(fill("root seed "))
	passed := 0
	for i := range WordCount {
		for j := 0; j < WordsTotal; j += 16 {
			l := slices.Clone(good)
			l[i] = WordAt(j)
			if _, err := ParseWords(strings.Join(l, " ")); err == nil && l[i] != good[i] {
				passed++
			}
		}
	}
	if tried := WordCount * WordsTotal / 16; passed < tried/1024 || passed > tried/64 {
		t.Errorf("%d of %d wrong words passed, want about %d", passed, tried, tried/256)
	}
}

// FuzzParseWords: what is accepted is what Words writes.
func FuzzParseWords(f *testing.F) {
	for _, words := range standardWords() {
		f.Add(words)
	}
	f.Fuzz(func(t *testing.T, text string) {
		root, err := ParseWords(text)
		if err != nil {
			return
		}
		if want := strings.Join(Words(root), " "); want != strings.Join(strings.Fields(strings.ToLower(text)), " ") {
			t.Fatalf("%q is read as %q", text, want)
		}
	})
}
