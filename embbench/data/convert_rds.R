# Writes the counts and cell tables of R objects as text that `embbench` reads (jiang24_rds, mcfaline24_gxe1, _gxe2).
#
#   Rscript embbench/data/convert_rds.R OBJECT.rds [MORE.rds ...]          # .rds, .RDS, also packed a second time as .gz
#
# Beside OBJECT.rds it writes OBJECT.matrix.mtx.gz (genes x cells, Matrix Market, whole numbers), OBJECT.obs.csv.gz and
# OBJECT.var.csv.gz (first column: names). An object that is a list of such objects (the lines of McFaline-Figueroa et al.)
# gives one triple per element: OBJECT.ELEMENT.matrix.mtx.gz ... Read are Seurat objects of versions 3 to 5 (assay RNA, else
# the default one, layer or slot "counts") and objects of SingleCellExperiment's kin, such as monocle's cell_data_set
# (assay "counts"). Only the packages Matrix and methods are needed: slots are read as they are stored, so neither Seurat nor
# monocle must be installed. Lines of the cell table are put in the order of the counts, by name, and their totals compared
# (nCount_*). Nothing in the object is run. Memory: the object itself, which R must hold, and a block of cells.

suppressPackageStartupMessages({
  library(methods)
  library(Matrix)
})

BLOCK <- 2000L # cells that are written at once

fail <- function(...) stop(paste0(...), call. = FALSE)

field <- function(x, name) {
  # a slot, or an element of a list; NULL where there is none
  if (isS4(x) && name %in% names(attributes(x))) return(attr(x, name))
  inner <- if (isS4(x)) attr(x, ".xData") else NULL # reference classes of older objects
  if (is.environment(inner) && exists(name, envir = inner, inherits = FALSE)) return(get(name, envir = inner))
  if (is.list(x) && !is.null(names(x)) && name %in% names(x)) return(x[[name]])
  NULL
}

plain_frame <- function(x) {
  # columns of a data.frame, or of a DFrame of S4Vectors, that hold one value per row
  if (is.data.frame(x)) return(x)
  columns <- field(x, "listData")
  rows <- field(x, "rownames")
  if (is.null(columns)) return(NULL)
  columns <- columns[vapply(columns, function(v) is.atomic(v) || is.factor(v), logical(1))]
  out <- as.data.frame(columns, stringsAsFactors = FALSE, check.names = FALSE, optional = TRUE)
  if (!is.null(rows) && nrow(out) == length(rows)) rownames(out) <- rows
  out
}

map_names <- function(map, layer) {
  # Assay5 keeps names as rows of a logical map with a column per layer; NULL where there is none
  names <- attr(map, "dimnames")
  if (is.null(names)) return(NULL)
  held <- matrix(as.logical(map), nrow = length(names[[1]]))
  if (layer %in% names[[2]]) names[[1]][held[, match(layer, names[[2]])]] else names[[1]]
}

seurat_counts <- function(x) {
  assays <- field(x, "assays")
  if (is.null(assays) || is.null(field(x, "meta.data"))) return(NULL)
  name <- if ("RNA" %in% names(assays)) "RNA" else as.character(field(x, "active.assay"))
  assay <- assays[[name]]
  counts <- field(assay, "counts") # Assay of versions 3 and 4
  if (is.null(counts)) { # Assay5: layers without names, the names in two logical maps
    layers <- field(assay, "layers")
    found <- grep("^counts", names(layers), value = TRUE)
    if (length(found) != 1L) fail("assay ", name, ": expected one layer of counts, found ", paste(names(layers), collapse = ", "))
    counts <- layers[[found]]
    dimnames(counts) <- list(map_names(field(assay, "features"), found), map_names(field(assay, "cells"), found))
  }
  var <- data.frame(row.names = rownames(counts))
  list(counts = counts, obs = field(x, "meta.data"), var = var, totals = paste0("nCount_", name))
}

experiment_counts <- function(x) {
  data <- field(field(x, "assays"), "data")
  listed <- field(data, "listData")
  obs <- plain_frame(field(x, "colData"))
  if (is.null(listed) || is.null(obs)) return(NULL)
  counts <- listed[["counts"]]
  if (is.null(counts)) {
    fail("expected an assay \"counts\", found ", paste(names(listed), collapse = ", "), "; is it another object?")
  }
  ranges <- field(x, "rowRanges")
  own <- field(x, "elementMetadata")
  if (is.null(own) || length(field(own, "listData")) == 0) {
    inner <- field(ranges, "unlistData")
    more <- field(if (is.null(inner)) ranges else inner, "elementMetadata")
    if (!is.null(more) && length(field(more, "listData"))) own <- more
  }
  var <- if (is.null(own)) NULL else plain_frame(own)
  genes <- rownames(counts)
  if (is.null(genes)) genes <- field(x, "NAMES")
  if (is.null(genes)) genes <- field(field(ranges, "partitioning"), "NAMES")
  if (is.null(genes) && !is.null(var) && "id" %in% names(var)) genes <- as.character(var[["id"]])
  if (is.null(genes)) fail("the object has no names of genes")
  if (is.null(var) || nrow(var) != nrow(counts)) var <- data.frame(row.names = make.unique(genes))
  rownames(counts) <- genes
  list(counts = counts, obs = obs, var = var, totals = "nCount_RNA")
}

write_csv <- function(frame, names, path) {
  out <- gzfile(path, "wb")
  on.exit(close(out))
  frame <- as.data.frame(lapply(frame, function(v) if (is.factor(v)) as.character(v) else v),
                         stringsAsFactors = FALSE, check.names = FALSE, optional = TRUE)
  if (ncol(frame) == 0L) frame <- data.frame(name = names) else frame <- cbind(data.frame(name = names), frame)
  utils::write.csv(frame, out, row.names = FALSE, na = "") # a label "NA" stays one
}

write_matrix <- function(counts, path) {
  counts <- as(as(counts, "CsparseMatrix"), "generalMatrix")
  if (any(counts@x != round(counts@x)) || any(counts@x < 0)) fail("the counts are no whole numbers; is it another layer?")
  out <- gzfile(path, "wb")
  on.exit(close(out))
  writeLines(c("%%MatrixMarket matrix coordinate integer general",
               sprintf("%d %d %.0f", nrow(counts), ncol(counts), length(counts@x))), out)
  for (first in seq(1L, ncol(counts), by = BLOCK)) {
    last <- min(first + BLOCK - 1L, ncol(counts))
    ends <- counts@p[first:(last + 1L)]
    if (ends[length(ends)] == ends[1]) next
    at <- (ends[1] + 1):ends[length(ends)]
    cell <- rep.int(first:last, diff(ends))
    writeLines(sprintf("%d %d %.0f", counts@i[at] + 1L, cell, counts@x[at]), out)
  }
}

same_cells <- function(counts, obs, totals, stem) {
  # the cell table in the order of the counts: their names are compared, and totals where the table has them
  cells <- colnames(counts)
  if (ncol(counts) != nrow(obs)) {
    fail(stem, ": expected a line of the cell table for each of ", ncol(counts), " cells, found ", nrow(obs))
  }
  named <- !is.null(cells) && .row_names_info(obs) > 0L # automatic row names are negative: the table has none
  if (named) {
    if (anyDuplicated(cells)) fail(stem, ": expected each cell once, found ", cells[anyDuplicated(cells)], " again")
    odd <- setdiff(cells, rownames(obs))
    if (length(odd)) fail(stem, ": expected the cells of the counts in the cell table, found no ", odd[1], " in it")
    obs <- obs[cells, , drop = FALSE]
  }
  told <- suppressWarnings(as.numeric(as.character(obs[[totals]])))
  total <- Matrix::colSums(counts)
  # genes may have been left out after the totals were made; a sum above it, or other sums without names, cannot be
  wrong <- which(if (named) total > told + 0.5 else abs(total - told) > 0.5)
  if (length(wrong)) {
    fail(stem, ": expected ", totals, " to be the sum of each cell, found ", told[wrong[1]], " for cell ", wrong[1],
         ", whose sum is ", total[wrong[1]], " (", length(wrong), " cells); the table is of other cells or another assay")
  }
  less <- sum(total < told - 0.5, na.rm = TRUE)
  if (less) message(stem, ": cells whose sum is below their ", totals, " (genes were left out since): ", less)
  if (!named && !length(told)) message(stem, ": no cell names in both tables, no ", totals, ": their order was not verified")
  obs
}

convert <- function(x, stem) {
  found <- seurat_counts(x)
  if (is.null(found)) found <- experiment_counts(x)
  if (is.null(found) && is.list(x) && !is.null(names(x)) && length(x)) {
    for (name in names(x)) convert(x[[name]], paste0(stem, ".", name))
    return(invisible())
  }
  if (is.null(found)) fail(stem, ": expected a Seurat object, a cell_data_set or a list of them, found ", class(x)[1])
  obs <- same_cells(found$counts, found$obs, found$totals, stem)
  cells <- if (is.null(colnames(found$counts))) rownames(obs) else colnames(found$counts)
  write_matrix(found$counts, paste0(stem, ".matrix.mtx.gz"))
  write_csv(obs, cells, paste0(stem, ".obs.csv.gz"))
  write_csv(found$var, rownames(found$counts), paste0(stem, ".var.csv.gz"))
  message(stem, ": ", nrow(found$counts), " genes x ", ncol(found$counts), " cells")
}

read_object <- function(path) {
  # GEO packs .RDS files, which are packed already, a second time
  twice <- grepl("\\.gz$", path)
  if (!twice) return(readRDS(path))
  inner <- gzcon(gzfile(path, "rb"))
  on.exit(close(inner))
  readRDS(inner)
}

paths <- commandArgs(trailingOnly = TRUE)
if (!length(paths)) fail("usage: Rscript convert_rds.R OBJECT.rds [MORE.rds ...]")
for (path in paths) {
  if (!file.exists(path)) fail(path, ": no such file")
  convert(read_object(path), sub("\\.(rds|RDS)(\\.gz)?$", "", path))
}
