package enc

import (
	"fmt"
	"reflect"
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
	fields map[string]*shape // of a struct, by encoded key
	list   []*shape          // of a struct written as an array
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
	for _, a := range above {
		if a == t {
			return nil, fmt.Errorf("%w: %v contains itself", ErrType, t)
		}
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
	s.kind, s.fields = shapeStruct, map[string]*shape{}
	for i := range s.typ.NumField() {
		f := s.typ.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("cbor"), ",")
		switch {
		case f.Name == "_" && options == "toarray":
			s.kind = shapeTuple
			continue
		case !f.IsExported() || name == "-":
			continue
		case f.Anonymous:
			return nil, fmt.Errorf("%w: %v embeds %v", ErrType, s.typ, f.Type)
		}
		elem, err := buildShape(f.Type, above)
		if err != nil {
			return nil, err
		}
		if s.kind == shapeTuple {
			s.list = append(s.list, elem)
			continue
		}
		n, err := strconv.ParseInt(name, 10, 64)
		if err != nil || !strings.Contains(","+options+",", ",keyasint,") {
			return nil, fmt.Errorf("%w: %v.%s has no `cbor:\"N,keyasint\"`", ErrType, s.typ, f.Name)
		}
		key, err := encMode.Marshal(n)
		if err != nil {
			return nil, fmt.Errorf("encode key %d: %w", n, err)
		}
		s.fields[string(key)] = elem
	}
	return s, nil
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
	for n := range int(arg) {
		if err := s.member(c, n); err != nil {
			return err
		}
	}
	return nil
}

// member walks over element n of an array, or one pair of a map.
func (s *shape) member(c *cursor, n int) error {
	switch s.kind {
	case shapeTuple:
		return s.list[n].conform(c)
	case shapeMap:
		if err := s.key.conform(c); err != nil {
			return err
		}
		return s.elem.conform(c)
	case shapeStruct:
		start := c.i
		if err := c.skip(); err != nil {
			return err
		}
		return s.fields[string(c.b[start:c.i])].conform(c)
	default:
		return s.elem.conform(c)
	}
}
