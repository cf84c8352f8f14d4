package enc

import (
	"fmt"
	"reflect"

	"github.com/fxamacker/cbor/v2"
)

// Raw is one encoded value. In a struct it keeps a nested value as received,
// for instance to decode it later by what another field says it is.
type Raw = cbor.RawMessage

// The two modes are values that never change after they were built.
var (
	encMode = newEncMode()
	decMode = newDecMode()
)

func newEncMode() cbor.EncMode {
	m, err := cbor.EncOptions{
		Sort:                 cbor.SortBytewiseLexical,
		IndefLength:          cbor.IndefLengthForbidden,
		TagsMd:               cbor.TagsForbidden,
		NilContainers:        cbor.NilContainerAsEmpty,
		BinaryMarshaler:      cbor.BinaryMarshalerNone,
		BigIntConvert:        cbor.BigIntConvertReject,
		TextMarshaler:        cbor.TextMarshalerNone,
		FieldName:            cbor.FieldNameToTextString,
		OmitEmpty:            cbor.OmitEmptyGoValue,
		ByteArray:            cbor.ByteArrayToByteSlice,
		ByteSliceLaterFormat: cbor.ByteSliceLaterFormatNone,
	}.EncMode()
	if err != nil {
		panic("bug: CBOR encoding options: " + err.Error())
	}
	return m
}

func newDecMode() cbor.DecMode {
	m, err := cbor.DecOptions{
		MaxNestedLevels:   2 * MaxDepth,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		UTF8:              cbor.UTF8RejectInvalid,
		NaN:               cbor.NaNDecodeForbidden,
		Inf:               cbor.InfDecodeForbidden,
		BinaryUnmarshaler: cbor.BinaryUnmarshalerNone,
		TextUnmarshaler:   cbor.TextUnmarshalerNone,
	}.DecMode()
	if err != nil {
		panic("bug: CBOR decoding options: " + err.Error())
	}
	return m
}

// Marshal encodes v. It fails for what Valid would refuse, such as a float or
// a nil pointer that is not marked omitempty.
func Marshal(v any) ([]byte, error) {
	b, err := encMode.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	if err := Valid(b); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return b, nil
}

// Unmarshal decodes b, which must be exactly one value, into what v points to.
// Errors are those of Valid and ErrType. Fields whose key is not in b keep the
// value they had; after an error v is not to be used.
func Unmarshal(b []byte, v any) error {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return fmt.Errorf("%w: decode into %T, not a pointer to a value", ErrType, v)
	}
	if err := Valid(b); err != nil {
		return err
	}
	s, err := shapeOf(rv.Type().Elem())
	if err != nil {
		return err
	}
	c := cursor{b: b}
	if err := s.conform(&c); err != nil {
		return err
	}
	if err := decMode.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", ErrType, err)
	}
	return nil
}
