package api

import (
	"encoding/json"
	"reflect"
	"time"
)

// tidy returns a copy of a body in which every absent list is empty and every
// time is in UTC, as the contract has it. It copies what it changes: the rooms
// answer from their own memory.
func tidy(v any) any {
	if v == nil {
		return nil
	}
	return tidied(reflect.ValueOf(v)).Interface()
}

func tidied(v reflect.Value) reflect.Value {
	if t, ok := v.Interface().(time.Time); ok {
		return reflect.ValueOf(t.UTC())
	}
	if v.Kind() == reflect.Pointer {
		return tidiedPointer(v)
	}
	if _, ok := v.Interface().(json.Marshaler); ok {
		return v
	}
	switch v.Kind() {
	case reflect.Slice:
		return tidiedSlice(v)
	case reflect.Struct:
		return tidiedStruct(v)
	default:
		return v
	}
}

func tidiedPointer(v reflect.Value) reflect.Value {
	if v.IsNil() {
		return v
	}
	p := reflect.New(v.Type().Elem())
	p.Elem().Set(tidied(v.Elem()))
	return p
}

func tidiedSlice(v reflect.Value) reflect.Value {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		return v
	}
	s := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
	for i := range v.Len() {
		s.Index(i).Set(tidied(v.Index(i)))
	}
	return s
}

func tidiedStruct(v reflect.Value) reflect.Value {
	c := reflect.New(v.Type()).Elem()
	c.Set(v)
	for i := range v.NumField() {
		if v.Type().Field(i).IsExported() {
			c.Field(i).Set(tidied(v.Field(i)))
		}
	}
	return c
}
