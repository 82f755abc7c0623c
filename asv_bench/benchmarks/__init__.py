"""One file per public function of fastelbo; `common` says what each of them measures."""
