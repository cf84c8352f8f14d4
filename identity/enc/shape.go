package enc

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// shape is what a Go type asks of the bytes beyond what the decoder checks by
// itself. The decoder pads or cuts a byte string that does not fit its array,
// and takes an array of integers for a byte slice; both would give one value
// two spellings. A nil shape asks nothing.
type shape struct {
	typ    reflect.Type
	kind   shapeKind
	length int // of an array
	elem   *shape
	key    *shape
	fields map[string]field // of a struct, by encoded key
	needed int              // how many of them must be there
	list   []*shape         // of a struct written as an array
}

// field is what a struct asks of one key.
type field struct {
	shape    *shape
	optional bool // marked omitempty or omitzero
	array    bool // an optional byte array, left out where it is all zeros
	empty    byte // encoded zero value of other kinds, left out as well; 0xff: none
}

type shapeKind uint8

const (
	shapeBytes      shapeKind = iota + 1 // a byte string of any length
	shapeFixedBytes                      // a byte string of one length
	shapeFixedArray                      // an array of one length
	shapeSlice
	shapeMap
	shapeStruct
	shapeTuple // struct written as an array
)

// shapes caches the shapes of types: reflect.Type to *shape.
var shapes sync.Map

var unmarshalerType = reflect.TypeFor[cbor.Unmarshaler]()

func shapeOf(t reflect.Type) (*shape, error) {
	if s, ok := shapes.Load(t); ok {
		return s.(*shape), nil
	}
	s, err := buildShape(t, nil)
	if err != nil {
		return nil, err
	}
	shapes.Store(t, s)
	return s, nil
}

func buildShape(t reflect.Type, above []reflect.Type) (*shape, error) {
	if slices.Contains(above, t) {
		return nil, fmt.Errorf("%w: %v contains itself", ErrType, t)
	}
	if t.Implements(unmarshalerType) || reflect.PointerTo(t).Implements(unmarshalerType) {
		return nil, nil
	}
	above = append(above, t)
	s := &shape{typ: t}
	var err error
	switch t.Kind() {
	case reflect.Pointer:
		return buildShape(t.Elem(), above)
	case reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128,
		reflect.Chan, reflect.Func, reflect.UnsafePointer, reflect.Uintptr:
		return nil, fmt.Errorf("%w: a %v has no encoding", ErrType, t)
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			s.kind = shapeBytes
			return s, nil
		}
		s.kind = shapeSlice
		s.elem, err = buildShape(t.Elem(), above)
	case reflect.Array:
		s.length = t.Len()
		if t.Elem().Kind() == reflect.Uint8 {
			s.kind = shapeFixedBytes
			return s, nil
		}
		s.kind = shapeFixedArray
		s.elem, err = buildShape(t.Elem(), above)
	case reflect.Map:
		s.kind = shapeMap
		if s.key, err = buildShape(t.Key(), above); err != nil {
			return nil, err
		}
		s.elem, err = buildShape(t.Elem(), above)
	case reflect.Struct:
		return structShape(s, above)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func structShape(s *shape, above []reflect.Type) (*shape, error) {
	s.kind, s.fields = shapeStruct, map[string]field{}
	for f := range s.typ.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("cbor"), ",")
		switch {
		case f.Name == "_" && options == "toarray":
			s.kind = shapeTuple
			continue
		case f.Anonymous:
			return nil, fmt.Errorf("%w: %v embeds %v", ErrType, s.typ, f.Type)
		case !f.IsExported() || name == "-":
			continue
		}
		elem, err := buildShape(f.Type, above)
		if err != nil {
			return nil, err
		}
		if s.kind == shapeTuple {
			s.list = append(s.list, elem)
			continue
		}
		key, fd, err := structField(f.Type, name, strings.Split(options, ","))
		if err != nil {
			return nil, fmt.Errorf("%w: %v.%s: %w", ErrType, s.typ, f.Name, err)
		}
		if _, ok := s.fields[key]; ok {
			return nil, fmt.Errorf("%w: %v.%s: key %s stands twice", ErrType, s.typ, f.Name, name)
		}
		fd.shape = elem
		s.fields[key] = fd
		if !fd.optional {
			s.needed++
		}
	}
	return s, nil
}

func structField(t reflect.Type, name string, options []string) (key string, fd field, err error) {
	n, err := strconv.ParseInt(name, 10, 64)
	if err != nil || !slices.Contains(options, "keyasint") {
		return "", fd, errors.New("no `cbor:\"N,keyasint\"`")
	}
	b, err := encMode.Marshal(n)
	if err != nil {
		return "", fd, err
	}
	omitEmpty := slices.Contains(options, "omitempty")
	fd.optional = omitEmpty || slices.Contains(options, "omitzero")
	fd.empty = 0xff
	switch t.Kind() {
	case reflect.Array:
		fd.array = fd.optional
		if omitEmpty || fd.optional && t.Elem().Kind() != reflect.Uint8 {
			return "", fd, errors.New("an optional array is one of bytes and marked omitzero")
		}
	case reflect.Struct:
		if fd.optional {
			return "", fd, errors.New("an optional struct is a pointer")
		}
	case reflect.Bool:
		fd.empty = majorSimple<<5 | simpleFalse
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		fd.empty = majorUint << 5
	case reflect.String:
		fd.empty = majorText << 5
	case reflect.Map:
		fd.empty = majorMap << 5
	case reflect.Slice:
		switch {
		case t == reflect.TypeFor[Raw]():
		case t.Elem().Kind() == reflect.Uint8:
			fd.empty = majorBytes << 5
		default:
			fd.empty = majorArray << 5
		}
	}
	return string(b), fd, nil
}

func (s *shape) conform(c *cursor) error {
	if s == nil {
		return c.skip()
	}
	start := c.i
	major, arg, err := c.head()
	if err != nil {
		return err
	}
	ok := false
	switch s.kind {
	case shapeBytes:
		ok = major == majorBytes
	case shapeFixedBytes:
		ok = major == majorBytes && arg == uint64(s.length)
	case shapeFixedArray:
		ok = major == majorArray && arg == uint64(s.length)
	case shapeSlice:
		ok = major == majorArray
	case shapeTuple:
		ok = major == majorArray && arg == uint64(len(s.list))
	case shapeMap, shapeStruct:
		ok = major == majorMap
	}
	if !ok {
		c.i = start
		return fmt.Errorf("%w: no %v", c.fail(ErrType), s.typ)
	}
	if major == majorBytes {
		c.i += int(arg)
		return nil
	}
	needed := s.needed
	for n := range int(arg) {
		if s.kind != shapeStruct {
			if err := s.member(c, n); err != nil {
				return err
			}
			continue
		}
		required, err := s.pair(c)
		if err != nil {
			return err
		}
		if required {
			needed--
		}
	}
	if needed > 0 {
		return fmt.Errorf("%w: %v", c.fail(ErrMissing), s.typ)
	}
	return nil
}

// zeroBytes reports whether b is the encoding of a byte array of zeros.
func (f field) zeroBytes(b []byte) bool {
	return f.array && f.shape != nil && len(bytes.Trim(b[len(b)-f.shape.length:], "\x00")) == 0
}

// member walks over element n of an array, or one pair of a Go map.
func (s *shape) member(c *cursor, n int) error {
	switch s.kind {
	case shapeTuple:
		return s.list[n].conform(c)
	case shapeMap:
		if err := s.key.conform(c); err != nil {
			return err
		}
	}
	return s.elem.conform(c)
}

// pair walks over one key and value of a struct, and says whether it is a
// field that must be there.
func (s *shape) pair(c *cursor) (required bool, err error) {
	start := c.i
	if err := c.skip(); err != nil {
		return false, err
	}
	f, ok := s.fields[string(c.b[start:c.i])]
	if !ok {
		return false, c.skip()
	}
	start = c.i
	if err := f.shape.conform(c); err != nil {
		return false, err
	}
	if f.optional && (c.b[start] == f.empty || f.zeroBytes(c.b[start:c.i])) {
		return false, c.fail(ErrNotCanonical)
	}
	return !f.optional, nil
}
