# Every command here makes .venv and installs what is pinned in constraints.txt, once.
PY := .venv/bin/python
READY := .venv/.installed

.PHONY: help course test measure sweep train lab edit merge address clean

help:     ; @sed -n 's/^#: //p' Makefile

$(READY): pyproject.toml constraints.txt tools/install.sh
	sh tools/install.sh

#: make course            run every chapter at its defaults, then show the leaderboard and a sample
course: $(READY)
	$(PY) tools/course.py

#: make test              lint, unit tests, and every notebook at its smoke parameters
test: export OMP_NUM_THREADS = 1
test: $(READY)
	$(PY) -m ruff check -q .
	$(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --doctest-modules tests gptlib
	GPTLIB_SMOKE=1 $(PY) -m pytest -q -n 2 --dist loadfile --nbval-lax --nbval-current-env --nbval-cell-timeout 300 notebooks

#: make measure           the long measurements whose results are committed
measure: $(READY)
	$(PY) benchmarks/recipe.py
	$(PY) benchmarks/speed.py
	$(PY) benchmarks/published.py
	$(PY) benchmarks/plan.py
	$(PY) benchmarks/bpe.py
	$(PY) benchmarks/generate.py
	$(PY) benchmarks/theatre.py
	$(PY) benchmarks/time_weighting.py
	$(PY) benchmarks/context_rolling.py
	$(PY) benchmarks/data.py

# A value from the command line is used as $$NAME, in quotation marks, so that it may have spaces.

#: make sweep GRID=…      run a grid of parameters and seeds, such as notebooks/params/sweep_lr.yaml, in parallel
sweep: $(READY)
	@test -f "$$GRID" || { echo "make sweep: GRID='$$GRID' is no file: give a grid, such as GRID=notebooks/params/sweep_lr.yaml" >&2; exit 1; }
	$(PY) tools/sweep.py "$$GRID"

PRESETS = $(filter-out smoke sweep%,$(basename $(notdir $(sort $(wildcard notebooks/params/*.yaml)))))
#: make train PRESET=…     run notebooks/train.ipynb as one of the systems in notebooks/params, such as nanogpt; goes on where it stopped
train: $(READY)
	@case "$$PRESET" in smoke|sweep*|*/*) false;; *) test -f "notebooks/params/$$PRESET.yaml";; esac || { echo "make train: PRESET='$$PRESET' is unknown. Known:" $(PRESETS) >&2; exit 1; }
	mkdir -p runs
	$(PY) -m papermill -k python3 -l python --cwd notebooks notebooks/train.ipynb "runs/$$PRESET.ipynb" -f "notebooks/params/$$PRESET.yaml"

#: make lab               JupyterLab, open on your own copy of chapter 1, in my_notebooks
lab: $(READY)
	$(PY) tools/lab.py
	.venv/bin/jupyter lab my_notebooks/01_bigram.ipynb

CHECK_NB = test -f "notebooks/$$NB.ipynb" || { echo "make: NB='$$NB' is no notebook: give a chapter, such as NB=01_bigram" >&2; exit 1; }
#: make edit NB=01_bigram write a chapter as build/edit/01_bigram.py (cells as # %%)
edit: $(READY)
	@$(CHECK_NB)
	mkdir -p build/edit
	$(PY) -m jupytext -q --to py:percent -o "build/edit/$$NB.py" "notebooks/$$NB.ipynb"

#: make merge NB=01_bigram bring those edits back, run the chapter afresh and save it
merge: $(READY)
	@$(CHECK_NB)
	$(PY) -m jupytext -q --update --to ipynb -o "notebooks/$$NB.ipynb" "build/edit/$$NB.py"
	$(PY) tools/execute.py "notebooks/$$NB.ipynb"

#: make address URL=…     write the address of the repository into README, notebooks and site; URL=none removes it
address: $(READY)
	@$(PY) tools/address.py "$$URL"

#: make clean             remove what the commands above made, but for .venv, downloads and my_notebooks
clean:    ; rm -rf runs build .pytest_cache .ruff_cache .hypothesis

# Sphinx and its kin, and the libraries that we compare with: for the next three and their tests.
SITE := .venv/.installed-site
$(SITE): $(READY)
	sh tools/install.sh dev,site,bench
	touch $@
test: $(SITE)
.PHONY: site editions bench

#: make site              the chapters as web pages in build/site, with search, glossary and the library's reference
site: $(SITE)
	$(PY) tools/make_site.py

#: make bench             our speed beside other libraries, in build/bench; OPTIONS="--nanogpt PATH" adds checkouts
bench: $(SITE)
	$(PY) benchmarks/bench.py $(OPTIONS)

#: make editions          student and instructor notebooks and slides, in build/editions
editions: $(SITE)
	$(PY) tools/editions.py
