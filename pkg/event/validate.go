package event

import (
	"net/url"
	"strconv"
	"strings"
	"time"
)

// MaxAttributes is the number of attributes beyond which the decoders refuse an event. It keeps the price of looking one
// up, and of finding one given twice, small.
const MaxAttributes = 256

// ownAttributes is how many more attributes a valid event may have: those that Millrace gives it on its way.
const ownAttributes = 32

// The members of the JSON format that hold the payload. No attribute can have such a name.
const (
	dataMember       = "data"
	dataBase64Member = "data_base64"
)

// dataContentEncoding is the attribute by which CloudEvents 0.3 says that data is base64 in the JSON format.
const dataContentEncoding = "datacontentencoding"

// Validate reports the first thing that keeps e from being a CloudEvent 1.0 or 0.3. The error is an [*Error].
func (e *Event) Validate() error {
	if len(e.Attributes) > MaxAttributes+ownAttributes {
		return tooMany()
	}
	for i := range e.Attributes {
		a := &e.Attributes[i]
		if err := a.validate(); err != nil {
			return err
		}
		if (&Event{Attributes: e.Attributes[:i]}).Lookup(a.Name) != nil {
			return duplicate(a.Name)
		}
	}
	return e.validateRequired()
}

// validateReceived is Validate for an event that has not been through Millrace yet.
func (e *Event) validateReceived() error {
	if len(e.Attributes) > MaxAttributes {
		return tooMany()
	}
	return e.Validate()
}

func tooMany() error {
	return invalid("", "has more than "+strconv.Itoa(MaxAttributes)+" attributes", "move them into the data")
}

func duplicate(name string) error {
	return invalid(name, "is given more than once", "send each attribute once")
}

func (e *Event) validateRequired() error {
	switch v, ok := e.Get(SpecVersion); {
	case !ok:
		return missing(SpecVersion)
	case v != "1.0" && v != "0.3":
		return invalid(SpecVersion, "is not a version this broker knows", `write "1.0"`)
	}
	for _, name := range [...]string{ID, Source, Type} {
		if e.Lookup(name) == nil {
			return missing(name)
		}
	}
	return nil
}

func missing(name string) error {
	return invalid(name, "is missing", `add the header "ce-`+name+`", or the member "`+name+`" of a JSON event`)
}

// validate checks what can be said of an attribute on its own.
func (a *Attribute) validate() error {
	if err := checkName(a.Name); err != nil {
		return err
	}
	if a.Value == "" {
		return invalid(a.Name, "is empty", "give it a value, or leave out an optional attribute")
	}
	if err := checkText(a.Name, a.Value); err != nil {
		return err
	}
	if a.Kind != String {
		return a.validateKind()
	}
	switch a.Name {
	case Source:
		return checkSource(a.Value)
	case DataSchema:
		return checkDataSchema(a.Value)
	case Time:
		return checkTime(a.Value)
	}
	return nil
}

func (a *Attribute) validateKind() error {
	switch {
	case isDefined(a.Name):
		return invalid(a.Name, "is not a string", "put the value in double quotes")
	case a.Kind == Boolean && a.Value != "true" && a.Value != "false":
		return invalid(a.Name, "is not a boolean", "write true or false")
	case a.Kind == Integer:
		return checkInteger(a.Name, a.Value)
	}
	return nil
}

// isDefined tells the attributes that the specification defines, all of them strings of some sort, from extensions.
func isDefined(name string) bool {
	switch name {
	case SpecVersion, ID, Source, Type, DataContentType, DataSchema, Subject, Time:
		return true
	}
	return false
}

// checkInteger holds numbers to the range that CloudEvents gives its type Integer.
func checkInteger(name, value string) error {
	if _, err := strconv.ParseInt(value, 10, 32); err != nil {
		return invalid(name, "is a number other than a whole one from -2147483648 to 2147483647", "send it as a string, in double quotes")
	}
	return nil
}

func checkName(name string) error {
	if name == dataMember {
		return invalid(name, "is not the name of an attribute", "send the data in the body, or choose another name")
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return invalid(quoteName(name), "is not the name of an attribute", "use lower-case letters a-z and digits only")
		}
	}
	if name == "" {
		return invalid("", "has an attribute without a name", "use lower-case letters a-z and digits")
	}
	return nil
}

func checkSource(s string) error {
	if _, ok := parseURI(s); !ok {
		return invalid(Source, "is not a URI-reference",
			"write something like /my/service or https://example.com/orders, and other characters percent-encoded (a space as %20)")
	}
	return nil
}

func checkDataSchema(s string) error {
	if u, ok := parseURI(s); !ok || !u.IsAbs() {
		return invalid(DataSchema, "is not an absolute URI", "write something like https://example.com/schemas/order")
	}
	return nil
}

// parseURI is as lenient as net/url, except about characters that no header would carry unchanged: they could not be told
// from a URI's own escapes afterwards.
func parseURI(s string) (*url.URL, bool) {
	for i := range len(s) {
		if c := s[i]; c != '%' && mustEncode(c) {
			return nil, false
		}
	}
	u, err := url.Parse(s)
	return u, err == nil
}

func checkTime(s string) error {
	if !isTimestamp(s) {
		return invalid(Time, "is not an RFC 3339 timestamp", "write something like 2006-01-02T15:04:05.999999999Z")
	}
	return nil
}

// isTimestamp checks against the grammar of RFC 3339, section 5.6, which package time follows neither in what it takes
// (a comma before the fraction) nor in what it refuses (lower-case t and z, leap seconds).
func isTimestamp(s string) bool {
	const layout = "0000-00-00T00:00:00"
	if len(s) <= len(layout) || !matches(s[:len(layout)], layout) {
		return false
	}
	return isDate(s) && isClock(s[11:]) && isFractionAndZone(s[len(layout):])
}

// matches says whether s has a digit wherever layout has one, and the same character elsewhere.
func matches(s, layout string) bool {
	for i := range len(layout) {
		switch want := layout[i]; {
		case want == '0' && !isDigit(s[i]), want != '0' && want != s[i] && (want != 'T' || s[i] != 't'):
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func twoDigits(s string) int { return int(s[0]-'0')*10 + int(s[1]-'0') }

func isDate(s string) bool {
	year, month, day := twoDigits(s)*100+twoDigits(s[2:]), time.Month(twoDigits(s[5:])), twoDigits(s[8:])
	return month >= 1 && month <= 12 && day >= 1 && time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Month() == month
}

func isClock(s string) bool {
	return twoDigits(s) <= 23 && twoDigits(s[3:]) <= 59 && twoDigits(s[6:]) <= 60
}

func isFractionAndZone(s string) bool {
	if s[0] == '.' {
		zone := strings.TrimLeft(s[1:], "0123456789")
		if len(zone) == len(s)-1 {
			return false
		}
		s = zone
	}
	switch {
	case s == "Z", s == "z":
		return true
	case len(s) == 6 && (s[0] == '+' || s[0] == '-') && matches(s[1:], "00:00"):
		return twoDigits(s[1:]) <= 23 && twoDigits(s[4:]) <= 59
	}
	return false
}

// AttributeBytes returns the size of all attribute names and values together, in bytes.
func (e *Event) AttributeBytes() int {
	n := 0
	for i := range e.Attributes {
		n += len(e.Attributes[i].Name) + len(e.Attributes[i].Value)
	}
	return n
}
