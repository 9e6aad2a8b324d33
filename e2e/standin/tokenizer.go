package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

// tokenizer is byte-level BPE of the kind that e2e/tiny_llama.py and
// tiny_gguf.py write: a token is a byte, or a space with the beginning of a
// word. Every beginning of such a token is one too, and nothing else is merged:
// so the longest piece is the one that merging leads to. Without pieces, words
// are counted.
type tokenizer struct {
	// pieces by their text, as bytes.
	pieces map[string]int
	bytes  [256]int
	// addPrefixSpace: each text begins with a space, as with SentencePiece.
	addPrefixSpace bool
}

func readTokenizer(path string) (tokenizer, error) {
	var file struct {
		PreTokenizer struct {
			AddPrefixSpace bool `json:"add_prefix_space"`
		} `json:"pre_tokenizer"`
		Model struct {
			Vocab map[string]int `json:"vocab"`
		} `json:"model"`
	}
	content, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(content, &file)
	}
	if err != nil {
		return tokenizer{}, fmt.Errorf("STANDIN_TOKENIZER: %w", err)
	}
	read := tokenizer{pieces: map[string]int{}, addPrefixSpace: file.PreTokenizer.AddPrefixSpace}
	for i := range 256 {
		number, is := file.Model.Vocab[letter(byte(i))]
		if !is {
			return tokenizer{}, fmt.Errorf("STANDIN_TOKENIZER: %s has no token for byte %d", path, i)
		}
		read.bytes[i] = number
	}
	space := letter(' ')
	for text, number := range file.Model.Vocab {
		if word, begins := strings.CutPrefix(text, space); begins && word != "" {
			read.pieces[" "+word] = number
		}
	}
	return read, nil
}

// letter is how byte-level BPE writes a byte: as itself where that is visible, else as a letter from 256 on.
func letter(value byte) string {
	visible := func(b int) bool { return b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE }
	if visible(int(value)) {
		return string(rune(value))
	}
	hidden := 0
	for b := range int(value) {
		if !visible(b) {
			hidden++
		}
	}
	return string(rune(256 + hidden))
}

func (t *tokenizer) count(text string) int {
	if t.pieces == nil {
		return len(strings.Fields(text))
	}
	return len(t.encode(text))
}

func (t *tokenizer) encode(text string) []int {
	found := []int{}
	if t.addPrefixSpace && !strings.HasPrefix(text, " ") {
		text = " " + text
	}
	for at := 0; at < len(text); {
		length, number := 1, t.bytes[text[at]]
		if text[at] == ' ' {
			for end := at + 2; end <= len(text); end++ {
				piece, is := t.pieces[text[at:end]]
				if !is {
					break
				}
				length, number = end-at, piece
			}
		}
		found = append(found, number)
		at += length
	}
	return found
}

// tokenize answers llama-server's question and vLLM's, each in its own shape. Nothing is added to a text.
func (e *engine) tokenize(w http.ResponseWriter, r *http.Request) {
	var request struct {
		Content, Prompt *string
	}
	read, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(read, &request)
	}
	text := request.Content
	if e.isVllm {
		text = request.Prompt
	}
	switch {
	case err != nil:
		refuse(w, http.StatusBadRequest, "invalid_request_error", err.Error())
	case text == nil || e.tokenizer.pieces == nil:
		refuse(w, http.StatusBadRequest, "invalid_request_error", "no text, or no STANDIN_TOKENIZER")
	case e.isVllm:
		found := e.tokenizer.encode(*text)
		answer(w, http.StatusOK, object{
			"count": len(found), "max_model_len": e.flags.contextSize, "tokens": found, "token_strs": nil,
		})
	default:
		answer(w, http.StatusOK, object{"tokens": e.tokenizer.encode(*text)})
	}
}
