module draftmark.dev/e2e/standin

go 1.26
