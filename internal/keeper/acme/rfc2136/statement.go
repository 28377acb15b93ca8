package rfc2136

import "strings"

// statement is one `key` of BIND's settings (named.conf(5)).
type statement struct{ name, algorithm, secret string }

// readStatement reads a text that is one of them, with comments, and nothing
// else.
func readStatement(text string) (statement, error) {
	words, err := tokens(text)
	if err != nil {
		return statement{}, err
	}
	if len(words) < 5 || words[0] != "key" || words[2] != "{" || strings.ContainsAny(words[1], "{};") {
		return statement{}, invalid("it is neither a secret nor a key statement")
	}
	s := statement{name: words[1]}
	for words = words[3:]; len(words) >= 3 && words[0] != "}"; words = words[3:] {
		if err := s.set(words[0], words[1], words[2]); err != nil {
			return statement{}, err
		}
	}
	if len(words) == 0 || len(words) > 2 || words[0] != "}" || len(words) == 2 && words[1] != ";" {
		return statement{}, invalid("its key statement does not end, or is not the only one")
	}
	if s.algorithm == "" || s.secret == "" {
		return statement{}, invalid("its key statement has no algorithm or no secret")
	}
	return s, nil
}

// set takes one clause: a word, its value, a semicolon.
func (s *statement) set(word, value, end string) error {
	target := map[string]*string{"algorithm": &s.algorithm, "secret": &s.secret}[word]
	if target == nil || *target != "" || end != ";" || strings.ContainsAny(value, "{};") {
		return invalid("its key statement has something else than one algorithm and one secret")
	}
	*target = value
	return nil
}

// tokens are the words of a text of BIND's settings, punctuation among them.
// Quotes are gone: neither a name nor base64 has need of any.
func tokens(text string) (words []string, err error) {
	for {
		text = strings.TrimLeft(text, " \t\r\n")
		switch {
		case text == "":
			return words, nil
		case strings.HasPrefix(text, "#") || strings.HasPrefix(text, "//"):
			_, text, _ = strings.Cut(text, "\n")
		case strings.HasPrefix(text, "/*"):
			var ok bool
			if _, text, ok = strings.Cut(text[2:], "*/"); !ok {
				return nil, invalid("a comment in it does not end")
			}
		case text[0] == '"':
			word, rest, ok := strings.Cut(text[1:], `"`)
			if !ok {
				return nil, invalid("a quote in it does not end")
			}
			words, text = append(words, word), rest
		case strings.ContainsRune("{};", rune(text[0])):
			words, text = append(words, text[:1]), text[1:]
		default:
			n := strings.IndexAny(text, " \t\r\n{};\"#")
			if n < 0 {
				n = len(text)
			}
			words, text = append(words, text[:n]), text[n:]
		}
	}
}
