package schemas

import (
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// errTokenIDs is what is wrong with ids that cannot be read.
var errTokenIDs = errors.New("token ids must be integers from 0, separated by commas")

// ParseTokenIDs reads the value of Llm-Token-Ids: for each event of the frame the ids that it was decoded from,
// separated by commas, and a semicolon between events. An event may have none.
func ParseTokenIDs(value string) iter.Seq2[[]int64, error] {
	return func(yield func([]int64, error) bool) {
		for group := range strings.SplitSeq(value, ";") {
			ids, err := AppendTokenIDs(nil, group)
			if !yield(ids, err) || err != nil {
				return
			}
		}
	}
}

// AppendTokenIDs reads ids that are separated by commas.
func AppendTokenIDs(ids []int64, list string) ([]int64, error) {
	if list == "" {
		return ids, nil
	}
	for id := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseInt(id, 10, 64)
		if err != nil || n < 0 {
			return nil, errTokenIDs
		}
		ids = append(ids, n)
	}
	return ids, nil
}

// Prompt is a part of what a prompt was encoded to, the value of Llm-Prompt-Ids: `<vocabulary> <total> <ids>`. Parts
// follow each other in the order of the chain.
type Prompt struct {
	Vocabulary string // whose ids they are: equal names mean the same thing by the same id
	Total      int    // ids of all parts
	IDs        string // separated by commas
}

// String is the header's value.
func (p Prompt) String() string {
	token, err := EncodeModel(p.Vocabulary)
	if err != nil { // too long a name: nobody has it
		token = "?"
	}
	return token + " " + strconv.Itoa(p.Total) + " " + p.IDs
}

// ParsePrompt reads what [Prompt.String] wrote.
func ParsePrompt(value string) (Prompt, error) {
	words := strings.SplitN(value, " ", 3)
	if len(words) < 3 {
		return Prompt{}, fmt.Errorf("header %s: want vocabulary, total and ids", HeaderPrompt)
	}
	vocabulary, err := DecodeModel(words[0])
	if err != nil {
		return Prompt{}, fmt.Errorf("header %s: %w", HeaderPrompt, err)
	}
	total, err := strconv.Atoi(words[1])
	if err != nil || total < 0 {
		return Prompt{}, fmt.Errorf("header %s: the total is no number", HeaderPrompt)
	}
	return Prompt{Vocabulary: vocabulary, Total: total, IDs: words[2]}, nil
}
